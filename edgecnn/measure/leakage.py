"""Prevents measuring on pictures that were used to make an artifact: its figures would be too good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from edgecnn.bundle import Artifact
from edgecnn.bundle.evidence import Stage
from edgecnn.datasets import Dataset
from edgecnn.errors import DataError
from edgecnn.pictures import picture_hash


def pictures_seen(artifact: Artifact, *, name: str) -> dict[str, frozenset[str]]:
    """The pictures used to make an artifact: "the calibration of NAME with SOURCE" → their content hashes.

    Empty if no picture was used, as for every float artifact.
    """
    evidence = artifact.evidence.quantization
    seen: dict[str, frozenset[str]] = {}
    if evidence is not None and evidence.calibration is not None:
        seen[f"the calibration of {name} with {evidence.calibration.source}"] = frozenset(evidence.calibration.images)
    if evidence is not None and evidence.search is not None:
        seen[f"the search for float layers of {name} with {evidence.search.data}"] = frozenset(evidence.search.images)
    return {use: hashes for use, hashes in seen.items() if hashes}


def refuse_seen_pictures(
    dataset: Dataset,
    seen: Mapping[str, Collection[str]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Refuse a data set that shares a picture with those used to make an artifact.

    Reads every picture once before anything is measured (5 ms each on a PC at 640 x 480), so that the error comes
    after a second and not after the measurement. If no picture was used, none is read.

    Args:
        dataset: the data set to measure on.
        seen: from `pictures_seen`.
        progress: called with (done, total) pictures.

    Raises:
        DataError: with the number of shared pictures and their use.
    """
    count, uses = _count_shared(dataset, seen, progress)
    if count:
        raise DataError(
            f"{count} of the {len(dataset)} images of {dataset.path} were used to make the artifact ({uses}): the "
            "metric on them would be too good. Measure on held-out pictures: give another --data, or --split for "
            "another part of the data set"
        )


def remark_on_learned_pictures(
    dataset: Dataset,
    learned: Mapping[str, Collection[str]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> str | None:
    """A remark on a metric measured on pictures that the network was trained on; None where there are none.

    It is not an error: how well a network fits its training pictures may be of interest.

    Args:
        dataset: the data set to measure on; read once if the network was trained on known pictures.
        learned: from `pictures_learned`.
        progress: called with (done, total) pictures.
    """
    count, uses = _count_shared(dataset, learned, progress)
    if not count:
        return None
    return (
        f"{count} of the {len(dataset)} images were used to make the network ({uses}): the metric shows how "
        "well it learned them, not how accurate it is on others"
    )


def pictures_learned(stages: Sequence[Stage]) -> dict[str, tuple[str, ...]]:
    """The pictures of a network's history: "train" → their content hashes."""
    learned: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        learned[stage.what] = learned.get(stage.what, ()) + stage.images
    return {what: images for what, images in learned.items() if images}


def _count_shared(
    dataset: Dataset, seen: Mapping[str, Collection[str]], progress: Callable[[int, int], None] | None
) -> tuple[int, str]:
    """Number of known pictures, and their uses; reads none where there is nothing to compare."""
    if not seen:
        return 0, ""
    found: list[str] = []
    for done, sample in enumerate(dataset):
        if progress is not None:
            progress(done, len(dataset))
        found.append(picture_hash(sample.image()))
    each = {use: frozenset(hashes) for use, hashes in seen.items()}
    shared = {use: sum(picture in hashes for picture in found) for use, hashes in each.items()}
    uses = ", ".join(f"{number} in {use}" for use, number in shared.items() if number)
    return sum(any(picture in hashes for hashes in each.values()) for picture in found), uses
