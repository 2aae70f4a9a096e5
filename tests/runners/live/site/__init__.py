"""Several cameras in one program."""
