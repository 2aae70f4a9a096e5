"""Pruning: removes whole channels, so that every runtime gets faster."""
