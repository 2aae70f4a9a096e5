"""Opens the pictures of a flow, and checks that evaluation pictures are used for nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bundle import sha256_of
from edgecnn.datasets import Dataset, open_dataset
from edgecnn.errors import DataError, SplitError
from edgecnn.flow.recipe import Recipe
from edgecnn.measure.leakage import pictures_learned, refuse_seen_pictures
from edgecnn.pictures import is_picture
from edgecnn.training.learning_pictures import open_pictures, task_with_head

if TYPE_CHECKING:
    from edgecnn.sources.model import TrainedModel


class RecipePictures:
    """The data of a recipe, opened; every file is read once.

    Args:
        recipe: a recipe whose files exist.
        model: the network at the start.
        leave_out: the flow's own folder, in case it is inside the data.
        progress: called with (files read, 0, name of the step).

    Raises:
        DataError: data without labels for the task, or pictures to evaluate on that are also used elsewhere.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: TrainedModel,
        *,
        leave_out: Path,
        progress: Callable[[int, int, str], None],
    ) -> None:
        self._recipe, self._leave_out, self._progress = recipe, leave_out.resolve(), progress
        self._hashes: dict[Path, str] = {}
        data, grown = recipe.data, recipe.train.head if recipe.train is not None else None
        self.task = task_with_head(model, grown)
        learned: list[Dataset] = []
        self.class_names: tuple[str, ...] = ()
        if data.train is not None:
            seed = recipe.train.seed if recipe.train is not None else 0
            found = open_pictures(model, data.train, data.validate_on, split=data.split, head=grown, seed=seed)
            learned, self.class_names = [found.train, found.validation], found.labels
        beside = sorted(data.train.glob("*")) if data.train is not None else []  # class names, a COCO JSON
        parts = [
            *recipe.learned_parts,
            data.validate_on,
            *(f for f in beside if f.is_file() and not f.name.startswith(".")),
        ]
        self.learned = self._digest(parts, learned, data.split, data.ignore_label)
        evaluated: Dataset | None = None
        self.evaluated = ""
        if data.evaluate_on is not None:
            evaluated = open_dataset(data.evaluate_on, task=self.task, labels=(), split=data.evaluate_split)
            self.evaluated = self._digest([data.evaluate_on], [evaluated], data.evaluate_split, data.ignore_label)
        quantize = recipe.quantize
        self.search_split = self._search_split()
        # Where splits are lists instead of folders, a folder holds the pictures of all splits.
        self.calibration = recipe.calibration if self.search_split is None or self._has_own_calibration else None
        searched = self._searched()
        places = [] if quantize is None else [self.calibration, recipe.search_data, quantize.evaluate_on]
        self.quantized = self._digest(places, searched, data.ignore_label, self.search_split)
        self.converted = self._digest([recipe.convert.data], [], data.ignore_label)
        if evaluated is not None:
            uses = {"[data] to learn from": learned, "[quantize] data": searched}
            pictures = {use: [s.path for d in sets for s in d] for use, sets in uses.items()}
            by_folder = self.calibration or (recipe.search_data if self.search_split is None else None)
            drawn_from = None if quantize is None else by_folder
            if drawn_from is not None:
                folder = drawn_from.parent if drawn_from.suffix.lower() == ".json" else drawn_from
                pictures["[quantize] calibration"] = [file for file in _files_below(folder) if is_picture(file)]
            self._check_apart(evaluated, pictures)
            refuse_seen_pictures(evaluated, pictures_learned(model.stages))

    @property
    def _has_own_calibration(self) -> bool:
        return self._recipe.quantize is not None and self._recipe.quantize.calibration is not None

    def _search_split(self) -> str | None:
        """The part of the pictures for the search: as given; of whole training data, the validation part."""
        quantize, place = self._recipe.quantize, self._recipe.search_data
        if quantize is None or place is None:
            return None
        if quantize.split is not None or place != self._recipe.data.train:
            return quantize.split
        for split in ("val", self._recipe.data.split or "train"):
            try:
                open_dataset(place, task=self.task, labels=(), split=split)
            except SplitError:
                continue
            return split
        return None

    def _searched(self) -> list[Dataset]:
        quantize = self._recipe.quantize
        if quantize is None:
            return []
        named = [(self._recipe.search_data, self.search_split), (quantize.evaluate_on, None)]
        return [
            open_dataset(place, task=self.task, labels=(), split=split) for place, split in named if place is not None
        ]

    def _check_apart(self, evaluated: Dataset, taking_part: dict[str, list[Path]]) -> None:
        wanted = [self._hash(sample.path) for sample in evaluated]
        shared = {}
        for use, pictures in taking_part.items():
            seen = {self._hash(picture) for picture in pictures}
            if count := sum(picture in seen for picture in wanted):
                shared[use] = count
        if shared:
            uses = ", ".join(f"{count} in {use}" for use, count in shared.items())
            raise DataError(
                f"some of the {len(wanted)} pictures of [data] evaluate_on are also used elsewhere ({uses}): the "
                "closing table would be too good. Give held-out pictures, or the held-out part with evaluate_split, "
                "or another folder for calibration and data in [quantize]"
            )

    def _digest(self, places: Iterable[Path | None], datasets: Iterable[Dataset], *words: str | None) -> str:
        """Digest of all files below the places, and of the pictures of data sets, which may be elsewhere."""
        digest = hashlib.sha256(repr(words).encode())
        for place in places:
            if place is None:
                continue
            for file in _files_below(place):
                if self._leave_out not in file.resolve().parents:
                    digest.update(f"{file.relative_to(place)}\0{self._hash(file)}\n".encode())
        for dataset in datasets:
            for sample in dataset:
                digest.update(f"{sample.path.name}\0{self._hash(sample.path)}\n".encode())
        return digest.hexdigest()[:20]

    def _hash(self, file: Path) -> str:
        key = file.resolve()
        if key not in self._hashes:
            self._progress(len(self._hashes), 0, "reading the data's files")
            try:
                self._hashes[key] = sha256_of(file)
            except OSError as failed:
                raise DataError(f"{file} cannot be read: {failed.strerror}") from failed
        return self._hashes[key]


def _files_below(place: Path) -> Iterator[Path]:
    """All files that aren't hidden, by name; a file gives itself."""
    if place.is_file():
        yield place
        return
    for folder, below, names in os.walk(place, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))
