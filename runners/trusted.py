"""Bundles that only run where a trusted key signed them: what was verified is what is opened.

Runtimes open files by path, and a path may hold something else a moment after it was verified. So the files of an
artifact are copied to a folder that nobody else can write to, verified there, opened there, and the folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.atomic import staging_folder, storage_error
from edgecnn.bundle import MANIFEST, Artifact, Bundle, write_manifest
from edgecnn.bundle.contents import copy_plain
from edgecnn.bundle.keys import trusted_keys
from edgecnn.bundle.releases import check_expiry, check_release, remember_release
from edgecnn.bundle.shipped import shipped_bundle
from edgecnn.bundle.signature import Signed, check_signed
from edgecnn.errors import BundleError, SignatureError, StorageError
from edgecnn.locks import reading

Keys = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class TrustedBundle:
    """A bundle that may run here.

    Attributes:
        bundle: its manifest was verified, and its files, as they were then.
        signed: who signed it, and as which release.
    """

    bundle: Bundle
    signed: Signed

    @contextlib.contextmanager
    def private(self, *artifacts: Artifact) -> Iterator[Bundle]:
        """The bundle as a folder that nobody else can write to, with these artifacts' files, while inside.

        Opening an artifact there compares the copies with the signed manifest (`Bundle.checked_path`).

        Raises:
            SignatureError: a file is no plain file any more.
            StorageError: there is no room for it.
        """
        source = Path(os.path.realpath(self.bundle.folder))
        with staging_folder(_private_root() / source.name, marker=MANIFEST, what="bundle") as place:
            folder = place / source.name  # whose name is in messages, and on boards
            folder.mkdir()
            for record in (record for artifact in artifacts for record in artifact.files):
                try:
                    copy_plain(source / record.path, folder / record.path)
                except FileNotFoundError as missing:
                    raise SignatureError(f"{source / record.path} went away while it was opened") from missing
            yield Bundle(folder, self.bundle.manifest)

    def remember(self) -> None:
        """Note that it ran; older releases are refused from now on.

        Raises:
            StorageError: it cannot be noted.
            SignatureError: a newer one ran meanwhile.
        """
        remember_release(self.signed)


@contextlib.contextmanager
def trusted_bundle(bundle: str | Path | Bundle, keys: Keys) -> Iterator[TrustedBundle]:
    """A bundle that a trusted key signed, as it is, and that may run here; nobody removes its files while inside.

    Raises:
        SignatureError: unsigned, changed, by another key, expired, or older than what ran here.
        BundleError: there is none, or it is malformed.
        SpecError: a key cannot be read.
        MissingDependencyError: `cryptography` is not installed.
        StorageError: what ran here cannot be read.
    """
    trusted = trusted_keys(keys)
    folder = bundle.folder if isinstance(bundle, Bundle) else shipped_bundle(bundle) or Path(bundle)
    with reading(Path(os.path.realpath(folder))):
        found = check_signed(folder, trusted)
        if isinstance(bundle, Bundle) and bundle.manifest != found.bundle.manifest:
            raise BundleError(f"{folder} was replaced after it was opened: open it again")
        check_expiry(found.signed)
        check_release(found.signed)
        yield TrustedBundle(found.bundle, found.signed)


@contextlib.contextmanager
def private_bundle(bundle: str | Path | Bundle, keys: Keys) -> Iterator[Bundle]:
    """A copy, which nobody else can write to, of a bundle that a trusted key signed; it is removed at the end.

    For work that opens several of its artifacts, some in other processes. That it ran is not remembered.

    Raises:
        As `trusted_bundle`, and StorageError: there is no room for it.
    """
    with contextlib.ExitStack() as stack:
        with trusted_bundle(bundle, keys) as trusted:
            copy = stack.enter_context(trusted.private(*trusted.bundle.manifest.artifacts))
        write_manifest(copy.folder, copy.manifest)  # for processes that open it by its path
        for artifact in copy.manifest.artifacts:
            copy.checked_path(artifact)
        yield copy


def _private_root() -> Path:
    """A folder of this user alone.

    Raises:
        StorageError: there is none, and none can be made.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    places = [Path(runtime) / "edgecnn"] if runtime else []
    places.append(Path(tempfile.gettempdir()) / f"edgecnn-{user}")
    failure: Exception | None = None
    for place in places:
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            found = place.lstat()
        except OSError as failed:
            failure = storage_error(place, failed)
            continue
        if not stat.S_ISDIR(found.st_mode) or (
            hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o077)
        ):
            failure = StorageError(f"{place} is not a folder of this user alone: remove it")
            continue
        return place
    raise failure or StorageError("there is no folder for temporary files")
