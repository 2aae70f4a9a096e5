"""Back end, Qualcomm's plug-in and layer times for ONNX Runtime."""
