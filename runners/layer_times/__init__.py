"""How long each layer of an artifact takes, from the runtime's own profile; one module a runtime.

Profiling costs time itself, so what is told here adds up to more than an inference takes elsewhere.
"""
