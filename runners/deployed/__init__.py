"""On a board that runs a bundle: its versions side by side, one of which runs, and the trial of a new one."""
