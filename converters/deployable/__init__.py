"""Wraps a network for conversion: uint8 frame in, the task's tensors out; graph rewrites and head decoders."""
