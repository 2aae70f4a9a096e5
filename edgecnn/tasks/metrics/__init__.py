"""Metrics of the tasks on labelled pictures, one file for each."""
