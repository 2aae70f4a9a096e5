"""From a trained network to files that runtimes open, each run and compared before it counts."""
