"""One body, every back end."""
