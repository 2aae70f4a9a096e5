"""Makes networks smaller and faster; see the issues for what comes."""
