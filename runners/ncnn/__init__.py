"""Back end and layer times for ncnn."""
