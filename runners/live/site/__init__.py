"""Several cameras of one place in one program: each runs for itself, on a shared or its own network."""
