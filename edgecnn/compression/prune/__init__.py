"""Narrower networks: whole channels go, so that every runtime gains, and the rest is what it was."""
