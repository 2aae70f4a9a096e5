"""Writes int8 files for OpenVINO."""
