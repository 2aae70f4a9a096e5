"""The live runtime: sources of frames, the loop, and sinks for results. Nothing here imports torch.

camera.py opens a source; loop.py feeds its frames to a runner; sinks/ deliver the results.
"""
