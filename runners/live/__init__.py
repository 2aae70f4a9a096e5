"""The live runtime: cameras and files as frames, the loop, and where results go. Nothing here imports torch.

camera.py opens a source; loop.py feeds its frames to a runner; sinks/ deliver what comes out.
"""
