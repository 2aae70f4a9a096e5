"""Writes int8 files for ONNX."""
