"""Flows from a network to a bundle: recipes, their stages, and continuing a stopped one."""
