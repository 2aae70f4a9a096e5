"""Prints the folder for GST_PLUGIN_PATH."""

from edgecnn.runners.gstreamer import plugin_folder

print(plugin_folder())  # noqa: T201
