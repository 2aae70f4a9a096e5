"""Labelled pictures in the usual forms, recognised by the content of a folder or file; needs only numpy and OpenCV."""

from edgecnn.datasets.base import (
    UNLABELLED,
    BoxTruth,
    ClassMap,
    Dataset,
    LabelTruth,
    MapTruth,
    Sample,
    Truth,
)
from edgecnn.datasets.forms import FORMS, Form, dataset_parts
from edgecnn.datasets.labelled_pictures import logger, open_dataset
from edgecnn.datasets.unlabelled_pictures import iterate_frames

__all__ = [
    "FORMS",
    "UNLABELLED",
    "BoxTruth",
    "ClassMap",
    "Dataset",
    "Form",
    "LabelTruth",
    "MapTruth",
    "Sample",
    "Truth",
    "dataset_parts",
    "iterate_frames",
    "logger",
    "open_dataset",
]
