"""Tracks objects from frame to frame, and counts them at lines and in zones."""
