"""Say what a bundle holds, and what was found out about it; compare two of its artifacts layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecnn._photographs import photographs
from edgecnn.bundle import Artifact, Bundle, Manifest
from edgecnn.datasets import iterate_frames
from edgecnn.errors import SpecError
from edgecnn.frame import FrameFitter
from edgecnn.registry import INT8_WRITERS
from edgecnn.results import UInt8Array

if TYPE_CHECKING:
    from edgecnn.measure.layer_noise import LayerComparison

MOST_PICTURES = 8


def inspect(bundle: str | Path | Bundle, *, verify: bool = True) -> Manifest:
    """The bundle's manifest: contract, artifacts, evidence.

    Args:
        bundle: a NAME.edge folder.
        verify: also compare every file with its hash.

    Raises:
        BundleError: no such bundle, damaged, or from a newer version.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if verify:
        for artifact in opened.manifest.artifacts:
            opened.checked_path(artifact)
    return opened.manifest


def compare_layers(
    bundle: str | Path | Bundle,
    a: str,
    b: str,
    *,
    data: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> LayerComparison:
    """Where along the network one artifact begins to differ from another of the same bundle.

    Both run on the same pictures, and each layer's output is compared. Wants what `convert` wants, not only a runtime.

    Args:
        bundle: a NAME.edge folder; for each format that is named it must hold an fp32 artifact, too.
        a: the reference, "FORMAT:PRECISION" as in "tflite:fp32".
        b: what is compared with it, as in "tflite:int8".
        data: pictures, of which at most 8 are taken; without it the photographs that come with edgecnn.
        progress: called with (frames done, frames in all, what is being done).

    Raises:
        SpecError, UnknownNameError: `a` or `b` is not such a name, or both are one file.
        BundleError: damaged, or it does not hold what is needed.
        DataError: `data` cannot be read.
        ConversionError: a file cannot be read or run layer by layer.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    reference, compared = _named(opened, a), _named(opened, b)
    if data is None:
        pictures, name = list(photographs().values()), "photographs"
    else:
        pictures, name = iterate_frames(data, MOST_PICTURES), Path(data).name
    from edgecnn.converters.layer_comparison import compare_artifacts

    frames = _frames(opened.manifest, pictures)
    return compare_artifacts(opened, reference, compared, frames, data=name, progress=progress)


def _named(bundle: Bundle, text: str) -> Artifact:
    """The artifact that FORMAT:PRECISION means."""
    name, colon, precision = text.partition(":")
    if not (name and colon and precision):
        raise SpecError(f"{text!r} is not FORMAT:PRECISION, as in tflite:int8")
    INT8_WRITERS.extra(name)  # an unknown name is refused here, with what is near
    return bundle.artifact(name, precision)


def _frames(manifest: Manifest, pictures: list[UInt8Array]) -> list[UInt8Array]:
    """The pictures as they go into the artifacts; a batch that they don't fill begins with the first again."""
    fitter = FrameFitter(manifest.frame)
    fitted = [fitter(picture)[0].copy() for picture in pictures]
    batch = manifest.batch
    return [
        np.concatenate([fitted[index % len(fitted)] for index in range(start, start + batch)])
        for start in range(0, len(fitted), batch)
    ]
