"""Runs artifacts on devices: numpy, OpenCV and one runtime. Nothing here imports torch."""
