"""Back end and layer times for LiteRT and tflite-runtime."""
