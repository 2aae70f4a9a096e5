"""No measuring on pictures that an artifact was made with: its figures there would be too good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from edgecnn.bundle import Artifact
from edgecnn.datasets import Dataset
from edgecnn.datasets.images import picture_hash
from edgecnn.errors import DataError
from edgecnn.evidence import Stage


def pictures_seen(artifact: Artifact, *, name: str) -> dict[str, frozenset[str]]:
    """What an artifact was made with: "the calibration of NAME with SOURCE" → content hashes of the pictures.

    Empty for one that no picture took part in, as every float one.
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
    """Refuse a data set that shares a picture with what an artifact was made with.

    Reads every picture once, before anything is measured: 5 ms each on a PC at 640 x 480, so that the error comes
    after a second and not after the measurement. Where nothing was seen, no picture is read.

    Args:
        dataset: to be measured on.
        seen: as `pictures_seen` gives it.
        progress: is called with (done, total) pictures.

    Raises:
        DataError: says how many pictures are shared, and with what.
    """
    count, uses = _count_shared(dataset, seen, progress)
    if count:
        raise DataError(
            f"{count} of the {len(dataset)} images of {dataset.path} took part when the artifact was made ({uses}): "
            "its figure on them would be too good. Measure on others: another --data, or --split for the part that "
            "took no part"
        )


def remark_on_learned_pictures(
    dataset: Dataset,
    learned: Mapping[str, Collection[str]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> str | None:
    """What is to be said of a figure on pictures that a network was trained on; None where it was on none.

    How well a network fits what it learned from is worth knowing, so this is no error.

    Args:
        dataset: to be measured on; read once where anything was learned from.
        learned: as `pictures_learned` gives it.
        progress: is called with (done, total) pictures.
    """
    count, uses = _count_shared(dataset, learned, progress)
    if not count:
        return None
    return (
        f"{count} of the {len(dataset)} images took part when the network was made ({uses}): the figure says how "
        "well it learned them, not how right it is on others"
    )


def pictures_learned(stages: Sequence[Stage]) -> dict[str, tuple[str, ...]]:
    """What was done to a network: "train" → content hashes of the pictures that took part."""
    learned: dict[str, tuple[str, ...]] = {}
    for stage in stages:
        learned[stage.what] = learned.get(stage.what, ()) + stage.images
    return {what: images for what, images in learned.items() if images}


def _count_shared(
    dataset: Dataset, seen: Mapping[str, Collection[str]], progress: Callable[[int, int], None] | None
) -> tuple[int, str]:
    """How many pictures were seen, and in what; reads none where nothing was seen."""
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
