"""Class folders: one folder a class, with its images in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edgecnn.datasets.base import UNLABELLED, Dataset, LabelTruth, Sample, map_classes
from edgecnn.datasets.images import list_images
from edgecnn.results import UInt8Array

NAME = "class folders"
# Folders of images that other forms have: their names are no classes.
_OF_OTHER_FORMS = frozenset({"images", "jpegimages", "labels", "annotations", "segmentationclass"})


def open_folders(path: Path, *, task: str, labels: Sequence[str], split: str | None) -> Dataset | None:
    """The data set, or None where `path` has no folders with images directly in them.

    Raises:
        DataError: no folder has the name of one of the network's classes.
    """
    del task  # classify alone
    if split is not None or not path.is_dir():
        return None
    images = {folder.name: list_images(folder) for folder in sorted(path.iterdir()) if _may_be_class(folder)}
    images = {name: files for name, files in images.items() if files}
    if not images:
        return None
    classes = map_classes(list(images), labels, where=path)
    left_out: Counter[str] = Counter()
    samples = []
    for (_, files), class_id in zip(images.items(), classes.network_ids.tolist(), strict=True):
        if class_id == UNLABELLED:
            left_out["images of classes that the network doesn't have"] += len(files)
        else:
            samples += [Sample(file, _Truth(class_id)) for file in files]
    return Dataset(path, NAME, classes, tuple(samples), dict(left_out))


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
