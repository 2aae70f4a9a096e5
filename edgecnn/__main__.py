"""`python -m edgecnn` is the `edgecnn` command."""

from edgecnn.cli._main import entry_point

entry_point()
