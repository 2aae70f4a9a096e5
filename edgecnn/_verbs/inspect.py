"""Show a bundle's contents and evidence; compare two of its artifacts layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn import options
from edgecnn.bundle import Bundle, Manifest
from edgecnn.datasets import iterate_frames
from edgecnn.photographs import photographs

if TYPE_CHECKING:
    from edgecnn.measure.layer_noise import LayerComparison

MOST_PICTURES = 8


def inspect(bundle: options.BundleName, *, verify: bool = True) -> Manifest:
    """The bundle's manifest: contract, artifacts, evidence.

    Args:
        bundle: a NAME.edge folder.
        verify: also check every file's hash.

    Raises:
        BundleError: no such bundle, damaged, or from a newer version.
    """
    with Bundle.open_locked(bundle) as opened:
        for artifact in opened.manifest.artifacts if verify else ():
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
    """Where in the network one artifact begins to differ from another of the same bundle.

    Both run on the same pictures, and each layer's output is compared. Needs the packages of `convert`, not only a
    runtime.

    Args:
        bundle: a NAME.edge folder; it must also have an fp32 artifact for each of the two formats.
        a: the reference, "FORMAT:PRECISION", such as "tflite:fp32".
        b: the artifact to compare with it, such as "tflite:int8".
        data: pictures, of which at most 8 are used; default: the photographs that ship with edgecnn.
        progress: called with (frames done, frames in total, current step).

    Raises:
        SpecError, UnknownNameError: `a` or `b` is not such a name, or both are the same file.
        BundleError: damaged, or without a needed artifact.
        DataError: `data` cannot be read.
        ConversionError: a file cannot be read or run layer by layer.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    reference, compared = opened.artifact_by_label(a), opened.artifact_by_label(b)
    from edgecnn.converters.layer_comparison import compare_artifacts

    if data is None:
        pictures, name = list(photographs().values()), "photographs"
    else:
        pictures, name = iterate_frames(data, MOST_PICTURES), Path(data).name
    return compare_artifacts(opened, reference, compared, pictures, data=name, progress=progress)
