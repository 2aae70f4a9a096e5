"""The table of forms of labelled pictures: one file and one row for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.datasets import coco, folders, masks, voc, voc_masks, yolo
from edgecnn.datasets.splits import Part, is_split_name, split_by_name
from edgecnn.tasks.truth import BOXES, CLASS_MAP, LABEL, OUTLINES


@dataclass(frozen=True)
class Form:
    """One form in which labelled pictures are stored.

    Attributes:
        name: its usual name.
        truths: the kinds of labels that it has; `edgecnn.tasks.Task.truth` names one.
        holds: what it consists of, for messages.
        parts: given a path and a kind of labels, returns the parts there; none where `path` isn't of this form.
    """

    name: str
    truths: frozenset[str]
    holds: str
    parts: Callable[[Path, str], list[Part]]


# In the order in which they are tried: a folder may hold labels of several forms.
FORMS = (
    Form(
        coco.NAME,
        frozenset({BOXES, OUTLINES}),
        "a .json file with images, annotations and categories",
        coco.coco_parts,
    ),
    Form(
        yolo.NAME,
        frozenset({BOXES, OUTLINES}),
        "images/ and labels/*.txt, with classes.txt, *.names or data.yaml",
        yolo.yolo_parts,
    ),
    Form(
        voc.NAME,
        frozenset({BOXES}),
        "JPEGImages/ and Annotations/*.xml, optionally with lists in ImageSets/Main/",
        voc.voc_parts,
    ),
    Form(
        masks.NAME,
        frozenset({CLASS_MAP}),
        "images/ and masks*/ with PNGs of class ids, with classes.txt",
        masks.mask_parts,
    ),
    Form(
        voc_masks.NAME,
        frozenset({CLASS_MAP}),
        "JPEGImages/ and SegmentationClass/*.png, with lists in ImageSets/Segmentation/ if wanted",
        voc_masks.voc_mask_parts,
    ),
    Form(
        folders.NAME,
        frozenset({LABEL}),
        "one folder per class, named after the class, with images in it",
        folders.folder_parts,
    ),
)


def dataset_parts(path: Path, form: Form, kind: str) -> list[Part]:
    """The parts of a data set in one form: from its own file; otherwise it and the folders train, val, test.

    Raises:
        DataError: a file that describes it is broken.
    """
    own = form.parts(path, kind)
    if any(part.split is not None for part in own) or not path.is_dir():
        return own
    below = [
        replace(part, split=split_by_name(folder.name), defined_by=f"the folder {folder.name}/", names=(folder.name,))
        for folder in sorted(path.iterdir())
        if folder.is_dir() and is_split_name(folder.name)
        for part in form.parts(folder, kind)
        if part.split is None
    ]
    return own + below
