"""The files sent to a board, by their content's hash, and the folders made from them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.bundle import MANIFEST, Artifact, Bundle, sha256_of
from edgecnn.datasets import Dataset
from edgecnn.errors import BundleError, DataError, near_path
from edgecnn.pictures import holds_picture, is_picture

# Suffixes of label files; a board needs no other files of a folder.
_LABEL_SUFFIXES = frozenset({".json", ".names", ".txt", ".xml", ".yaml", ".yml"})


@dataclass(frozen=True)
class Item:
    """A file that goes to the board.

    Attributes:
        name: path in the job's folder on the board.
        path: the file here.
        sha256: its content's hash; "" for a file of which only the name is needed: it is empty on the board.
        size: in bytes.
        content: where the file may change, what it held when it was hashed; by default, the file is read.
    """

    name: str
    path: Path
    sha256: str
    size: int
    content: bytes | None = None

    def read(self) -> bytes:
        """What is sent.

        Raises:
            OSError: the file cannot be read.
        """
        return self.path.read_bytes() if self.content is None else self.content


def bundle_items(bundle: Bundle, artifacts: Sequence[Artifact], *, folder: str) -> list[Item]:
    """The manifest and some artifacts' files; each is checked against its hash in the manifest.

    Raises:
        BundleError: a file is missing or was changed since it was verified.
    """
    items = {}
    for artifact in artifacts:
        bundle.checked_path(artifact)
        for record in artifact.files:
            name = f"{folder}/{record.path}"
            items[name] = Item(name, bundle.folder / record.path, record.sha256, record.bytes)
    manifest = bundle.folder / MANIFEST
    try:
        content = manifest.read_bytes()  # kept: somebody may write what he measured into it meanwhile
        digest = hashlib.sha256(content).hexdigest()
        items[MANIFEST] = Item(f"{folder}/{MANIFEST}", manifest, digest, len(content), content)
    except OSError as failed:
        raise BundleError(f"{manifest} cannot be read: {failed.strerror}") from failed
    return list(items.values())


def dataset_items(data: Path, dataset: Dataset, used: Dataset, *, folder: str) -> tuple[list[Item], str]:
    """A data set's files: labels, and the pictures that are used, with masks of the same name.

    Of all other pictures only the names are sent, so that the board chooses the same ones.

    Args:
        data: the path that the user gave: a folder, or a file with the labels.
        dataset, used: all samples, and those that are measured on.
        folder: in the job's folder.

    Returns:
        The files, and where `data` is in the job's folder.

    Raises:
        DataError: a file that cannot be read or lies outside the data: nothing outside the data is ever sent.
    """
    data = _absolute(data)
    place = data if data.is_dir() else data.parent
    pictures = [_absolute(sample.path) for sample in dataset]
    root = Path(os.path.commonpath([place, *(picture.parent for picture in pictures)]))
    own = [place.resolve(), dataset.root.resolve()] if dataset.root != Path() else [place.resolve()]
    stems = {sample.path.stem for sample in used}
    below = (path for path in _files_below(data) if path.suffix.lower() in _LABEL_SUFFIXES or is_picture(path))
    files = {*(below if data.is_dir() else [data]), *pictures}
    items, set_of_pictures = [], set(pictures)
    for path in sorted(files):
        name = f"{folder}/{path.relative_to(root).as_posix()}"
        try:
            wanted = not is_picture(path) or path.stem in stems
            _refuse_elsewhere(path, own, is_picture_wanted=path in set_of_pictures and wanted)
            items.append(_item(name, path) if wanted else Item(name, path, "", 0))
        except OSError as failed:
            raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    within = data.relative_to(root).as_posix()
    return items, folder if within == "." else f"{folder}/{within}"


def picture_items(data: Path, *, folder: str) -> tuple[list[Item], str]:
    """Unlabelled pictures: a file, or everything in a folder.

    Raises:
        DataError: no file, or one that cannot be read.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist: expected an image, a video, or a folder of images{near_path(data)}")
    name = f"{folder}/{data.name or 'pictures'}"
    try:
        if data.is_file():
            return [_item(name, data)], name
        files = [path for path in sorted(_files_below(data)) if is_picture(path)]
        for path in files:
            _refuse_elsewhere(path, [data.resolve()], is_picture_wanted=True)
        return [_item(f"{name}/{path.relative_to(data).as_posix()}", path) for path in files], name
    except OSError as failed:
        raise DataError(f"{failed.filename or data} cannot be read: {failed.strerror}") from failed


def _refuse_elsewhere(path: Path, own: Sequence[Path], *, is_picture_wanted: bool) -> None:
    """Check that a file to send belongs to the data, whatever the labels say."""
    real = path.resolve()
    if not any(real.is_relative_to(folder) for folder in own):
        raise DataError(
            f"{path} is a link to a place outside the data, or lies there ({real}): only files in the data's own "
            "folder are sent to a board; copy it there"
        )
    if is_picture_wanted and not holds_picture(path):
        raise DataError(f"{path} has a picture's name, but is not a picture: it is not sent")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _item(name: str, path: Path) -> Item:
    size = path.stat().st_size
    return Item(name, path, sha256_of(path) if size else "", size)


def _files_below(folder: Path) -> Iterable[Path]:
    seen: set[str] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        below[:] = [n for n in below if not n.startswith(".") and os.path.realpath(os.path.join(place, n)) not in seen]
        yield from (Path(place) / name for name in names if not name.startswith("."))
