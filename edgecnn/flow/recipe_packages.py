"""Checks that the packages for a recipe's stages are installed."""

from __future__ import annotations

from importlib.util import find_spec

from edgecnn.errors import MissingDependencyError, SpecError
from edgecnn.flow.recipe import Recipe
from edgecnn.flow.stages import MODEL_STAGES
from edgecnn.formats import FORMATS


def check_packages(recipe: Recipe) -> None:
    """Check the packages of all stages before the first one starts.

    Raises:
        MissingDependencyError, SpecError: a package is not installed.
    """
    asked = [f"[{stage.name}]" for stage in MODEL_STAGES if recipe.table(stage.name) is not None]
    for package in ("lightning", "torch_pruning") if asked else ():
        if find_spec(package) is None:
            raise MissingDependencyError(asked[0], package, extra="train")
    if not recipe.convert.formats:
        raise SpecError("no converter is installed: pip install 'edgecnn[convert]'")
    for name in recipe.convert.formats:
        row = FORMATS.get(name)
        if not row.converts_here:
            row.load_converter()  # raises with the missing package
        if not row.runs_here:
            raise row.missing_runtime(f"format {name!r}")
    if recipe.quantize is not None:
        for name in recipe.quantize.to or recipe.convert.formats:
            row = FORMATS.get(name)
            if not row.quantizes_here:
                row.load_int8_writer()
