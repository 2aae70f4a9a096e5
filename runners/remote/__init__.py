"""A board at the other end of an SSH connection: gets what it needs, runs a verb, gives the answer back."""
