"""Training with the rounding that an int8 artifact will do (quantization-aware training)."""
