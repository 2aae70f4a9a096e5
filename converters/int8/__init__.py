"""Makes int8 artifacts from float ones, with one writer for each format; a Plan says what to quantize."""
