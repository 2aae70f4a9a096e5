"""What a device installs; a package, so that its tests can share environments."""
