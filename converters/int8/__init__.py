"""Int8 artifacts from float ones, one writer a format; what to quantize is decided elsewhere (a Plan)."""
