"""Reads, checks and records the frames from which activation ranges are taken."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgecnn.bundle.evidence import CalibrationRecord
from edgecnn.datasets import Dataset, iterate_frames
from edgecnn.errors import DataError
from edgecnn.frame import FrameFitter, FrameSpec, Placement
from edgecnn.pictures import picture_hash
from edgecnn.results import UInt8Array

DEFAULT_COUNT = 128
_FEW = 16
# Neighbouring pixels of pictures are similar (correlation 0.8 to 0.99); those of noise are not.
_LIKE_NEIGHBOURS = 0.3
_FLAT = 3.0  # grey levels of standard deviation
_TINY = 4  # times smaller than the frame


@dataclass(frozen=True)
class Calibration:
    """Frames to calibrate on.

    Attributes:
        frames: uint8 [1, height, width, 3] BGR each, fitted as the runner fits them.
        places: position of each picture in its frame.
        hashes: content hash of each picture, in the order of `frames`.
        record: the frames' source, for the evidence.
        warnings: problems of the frames and their effect on the result, in sentences.
    """

    frames: tuple[UInt8Array, ...]
    places: tuple[Placement, ...]
    hashes: tuple[str, ...]
    record: CalibrationRecord
    warnings: tuple[str, ...]

    def halves(self) -> tuple[tuple[UInt8Array, ...], tuple[UInt8Array, ...]]:
        """Two disjoint halves; good ranges hardly depend on which half is used."""
        return self.frames[::2], self.frames[1::2]


def load_calibration(
    source: str | Path | Dataset, spec: FrameSpec, *, count: int = DEFAULT_COUNT, seed: int = 0
) -> Calibration:
    """Read pictures, fit them to the frame, and check whether they can be used for calibration.

    Args:
        source: a folder of images, a video or an image; or labelled pictures.
        spec: the frame of the artifact to calibrate.
        count: largest number of pictures.
        seed: calibration seed: chooses the pictures where there are more.

    Raises:
        DataError: no pictures, a file that cannot be read, or only pictures of one colour.
    """
    if isinstance(source, Dataset):
        chosen = np.random.default_rng(seed).permutation(len(source))[:count]
        pictures = [source.samples[index].image() for index in sorted(chosen.tolist())]
    else:
        pictures = iterate_frames(source, count, seed=seed)
    hashes = tuple(picture_hash(picture) for picture in pictures)
    different = tuple(dict.fromkeys(hashes))
    fitter = FrameFitter(spec)
    record = CalibrationRecord(
        source=(source.path if isinstance(source, Dataset) else Path(source)).name,
        count=len(pictures),
        seed=seed,
        preprocess_sha256=hashlib.sha256(msgspec.json.encode(spec)).hexdigest()[:16],
        images=different,
    )
    warnings = _warnings(pictures, distinct=len(different), spec=spec)
    fitted = [(frame.copy(), place) for frame, place in map(fitter, pictures)]
    return Calibration(
        tuple(frame for frame, _ in fitted), tuple(place for _, place in fitted), hashes, record, warnings
    )


def _warnings(pictures: list[UInt8Array], *, distinct: int, spec: FrameSpec) -> tuple[str, ...]:
    flat = sum(float(picture.std()) < _FLAT for picture in pictures)
    if flat == len(pictures):
        raise DataError(
            f"all {len(pictures)} calibration pictures have one colour: they give no activation ranges; give "
            "pictures like those that the network will see"
        )
    noisy = sum(_neighbour_correlation(picture) < _LIKE_NEIGHBOURS for picture in pictures)
    small = sum(
        picture.shape[0] * _TINY <= spec.height_px and picture.shape[1] * _TINY <= spec.width_px for picture in pictures
    )
    found = []
    if distinct < _FEW:
        found.append(
            f"only {distinct} different calibration picture{'s' if distinct > 1 else ''}: activation ranges will fit "
            f"these and clip others; give at least {_FEW}, better {DEFAULT_COUNT}"
        )
    if flat:
        found.append(f"{flat} of {len(pictures)} calibration pictures have one colour and add nothing to the ranges")
    if noisy > len(pictures) // 4:
        found.append(
            f"{noisy} of {len(pictures)} calibration pictures look like noise: their activations differ from those of "
            "real pictures, so ranges will be wrong and the accuracy lower"
        )
    if small > len(pictures) // 4:
        found.append(
            f"{small} of {len(pictures)} calibration pictures are at least {_TINY} times smaller than the frame of "
            f"{spec.width_px}x{spec.height_px} px: enlarged, they have no detail, and ranges will be too narrow"
        )
    return tuple(found)


def _neighbour_correlation(picture: UInt8Array) -> float:
    """Correlation of neighbouring pixels: 1 for smooth and plain pictures, 0 for noise."""
    grey = picture.mean(axis=2)
    if min(grey.shape) < 2 or grey.std() < _FLAT:
        return 1.0
    left, right = grey[:, :-1].ravel(), grey[:, 1:].ravel()
    return float(np.corrcoef(left, right)[0, 1])
