"""The verbs of the public API, one file each; the command line calls these."""
