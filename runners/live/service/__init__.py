"""A run as a service of the system: its systemd unit, and what it tells systemd while it runs."""
