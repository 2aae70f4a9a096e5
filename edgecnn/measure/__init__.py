"""Measures networks: parity, accuracy and latency, and describes the machine."""
