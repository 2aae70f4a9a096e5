"""Writes int8 files for TFLite."""
