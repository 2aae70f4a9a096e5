"""Quantization-aware training: training with the rounding of an int8 artifact."""
