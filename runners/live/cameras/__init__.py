"""Sources of frames: cameras, streams and files; a live source that breaks off is opened again."""
