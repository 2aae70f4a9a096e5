"""What is measured of a network: parity, accuracy, latency, and the machine it was measured on."""
