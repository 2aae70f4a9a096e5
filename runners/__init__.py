"""Runs artifacts on devices with numpy, OpenCV and one runtime. Nothing here imports torch."""
