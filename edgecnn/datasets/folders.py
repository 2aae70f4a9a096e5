"""Class folders: one folder per class, with its images in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgecnn.datasets.base import UNLABELLED, Dataset, LabelTruth, Sample, map_classes
from edgecnn.datasets.splits import Part, is_split_name
from edgecnn.pictures import list_pictures
from edgecnn.results import UInt8Array

NAME = "class folders"
# Image folders of other forms: their names are not classes.
_OF_OTHER_FORMS = frozenset({"images", "jpegimages", "labels", "annotations", "segmentationclass"})


def folder_parts(path: Path, kind: str) -> list[Part]:
    """A folder whose subfolders have images; not if they are called train, val and the like."""
    del kind  # this form has only picture classes
    if not path.is_dir():
        return []
    images = {folder.name: list_pictures(folder) for folder in sorted(path.iterdir()) if _may_be_class(folder)}
    images = {name: files for name, files in images.items() if files}
    if all(is_split_name(name) for name in images):
        return []
    return [Part(None, "its folders", partial(_open, path, images), place=path)]


def _open(path: Path, images: dict[str, list[Path]], labels: Sequence[str]) -> Dataset:
    """Open the data set.

    Raises:
        DataError: no folder has the name of one of the network's classes.
    """
    classes = map_classes(list(images), labels, where=path)
    left_out: Counter[str] = Counter()
    samples = []
    for (_, files), class_id in zip(images.items(), classes.network_ids.tolist(), strict=True):
        if class_id == UNLABELLED:
            left_out["images of classes that the network doesn't have"] += len(files)
        else:
            samples += [Sample(file, _Truth(class_id)) for file in files]
    return Dataset(path, NAME, classes, tuple(samples), dict(left_out), root=path)


class _Truth:
    """The class of one picture."""

    def __init__(self, class_id: int) -> None:
        self._truth = LabelTruth(class_id)

    def __call__(self, image: UInt8Array) -> LabelTruth:
        return self._truth


def _may_be_class(path: Path) -> bool:
    name = path.name.lower()
    other = name in _OF_OTHER_FORMS or name.startswith(("masks", "."))
    return path.is_dir() and not other
