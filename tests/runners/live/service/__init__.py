"""A run as a service of the system."""
