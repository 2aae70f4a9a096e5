"""Rewrites of a network that do not change its answers; each is checked on frames before it is used."""
