"""Converts a trained network to files that runtimes open; each file is run and compared before it is accepted."""
