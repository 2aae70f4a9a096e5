"""Say what a bundle holds, and what was found out about it."""

from __future__ import annotations

from pathlib import Path

from edgecnn.bundle import Bundle, Manifest


def inspect(bundle: str | Path | Bundle, *, verify: bool = True) -> Manifest:
    """The bundle's manifest: contract, artifacts, evidence.

    Args:
        bundle: a NAME.edge folder.
        verify: also compare every file with its hash.

    Raises:
        BundleError: no such bundle, damaged, or from a newer version.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if verify:
        for artifact in opened.manifest.artifacts:
            opened.checked_path(artifact)
    return opened.manifest
