"""Runs a verb on a board over SSH: sends what the board needs, runs edgecnn, returns the answer."""
