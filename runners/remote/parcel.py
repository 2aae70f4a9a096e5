"""What goes to a board: files by their content's hash, and the folders that are laid of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.bundle import MANIFEST, Artifact, Bundle, sha256_of
from edgecnn.datasets import Dataset
from edgecnn.datasets.images import is_image
from edgecnn.errors import BundleError, DataError


@dataclass(frozen=True)
class Item:
    """A file that goes to the board.

    Attributes:
        name: path in the job's folder there.
        path: the file here.
        sha256: of its content; "" for one of which only the name is needed, which lies there empty.
        size: in bytes.
    """

    name: str
    path: Path
    sha256: str
    size: int


def bundle_items(bundle: Bundle, artifacts: Sequence[Artifact], *, folder: str) -> list[Item]:
    """The manifest and some artifacts' files, each compared with the hash that the manifest gives.

    Raises:
        BundleError: a file is absent or not the one that was verified.
    """
    items = {}
    for artifact in artifacts:
        bundle.checked_path(artifact)
        for record in artifact.files:
            name = f"{folder}/{record.path}"
            items[name] = Item(name, bundle.folder / record.path, record.sha256, record.bytes)
    manifest = bundle.folder / MANIFEST
    try:
        items[MANIFEST] = _item(f"{folder}/{MANIFEST}", manifest)
    except OSError as failed:
        raise BundleError(f"{manifest} cannot be read: {failed.strerror}") from failed
    return list(items.values())


def dataset_items(data: Path, dataset: Dataset, used: Dataset, *, folder: str) -> tuple[list[Item], str]:
    """A data set's files: labels, and the pictures that take part, with masks of the same name.

    Of all other pictures only the names go, so that the board chooses the same ones.

    Args:
        data: what the user named: a folder, or a file with the labels.
        dataset, used: all samples, and those that are measured on.
        folder: in the job's folder.

    Returns:
        The files, and where `data` is in the job's folder.

    Raises:
        DataError: a file that cannot be read.
    """
    data = data.absolute()
    place = data if data.is_dir() else data.parent
    pictures = [sample.path.absolute() for sample in dataset]
    root = Path(os.path.commonpath([place, *(picture.parent for picture in pictures)]))
    stems = {sample.path.stem for sample in used}
    files = {*(_files_below(data) if data.is_dir() else [data]), *pictures}
    items = []
    for path in sorted(files):
        name = f"{folder}/{path.relative_to(root).as_posix()}"
        try:
            wanted = not is_image(path) or path.stem in stems
            items.append(_item(name, path) if wanted else Item(name, path, "", 0))
        except OSError as failed:
            raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    below = data.relative_to(root).as_posix()
    return items, folder if below == "." else f"{folder}/{below}"


def picture_items(data: Path, *, folder: str) -> tuple[list[Item], str]:
    """Pictures to look at: a file, or all that lies in a folder.

    Raises:
        DataError: nothing there, or a file that cannot be read.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist: expected an image, a video, or a folder of images")
    name = f"{folder}/{data.name or 'pictures'}"
    try:
        if data.is_file():
            return [_item(name, data)], name
        return [_item(f"{name}/{path.relative_to(data).as_posix()}", path) for path in sorted(_files_below(data))], name
    except OSError as failed:
        raise DataError(f"{failed.filename or data} cannot be read: {failed.strerror}") from failed


def _item(name: str, path: Path) -> Item:
    size = path.stat().st_size
    return Item(name, path, sha256_of(path) if size else "", size)


def _files_below(folder: Path) -> Iterable[Path]:
    for place, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))
