"""Back end and layer times for OpenVINO."""
