"""No measuring on pictures that an artifact was made with: its figures there would be too good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from edgecnn.bundle import Artifact
from edgecnn.datasets import Dataset
from edgecnn.datasets.images import picture_hash
from edgecnn.errors import DataError


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
    if not seen:
        return
    total = len(dataset)
    found: list[str] = []
    for done, sample in enumerate(dataset):
        if progress is not None:
            progress(done, total)
        found.append(picture_hash(sample.image()))
    shared = {use: sum(picture in hashes for picture in found) for use, hashes in seen.items()}
    count = sum(any(picture in hashes for hashes in seen.values()) for picture in found)
    if count:
        uses = ", ".join(f"{number} in {use}" for use, number in shared.items() if number)
        raise DataError(
            f"{count} of the {total} images of {dataset.path} took part when the artifact was made ({uses}): "
            "its figure on them would be too good. Measure on others: another --data, or --split for the part that "
            "took no part"
        )
