"""Compress a network with one recipe: train, prune, fine-tune, convert, quantize, measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from edgecnn import options
from edgecnn._verbs.convert import convert
from edgecnn._verbs.evaluate import evaluate
from edgecnn._verbs.prune import prune
from edgecnn._verbs.quantize import quantize
from edgecnn._verbs.train import train
from edgecnn.errors import SpecError
from edgecnn.flow.closing_figures import Compression, Point
from edgecnn.flow.flow import REPORT, Flow
from edgecnn.flow.recipe import Recipe
from edgecnn.flow.recipe_file import read_recipe
from edgecnn.flow.recipe_packages import check_packages
from edgecnn.flow.verbs import Verbs
from edgecnn.options import Option, kinds
from edgecnn.sources.own_code import allow, check_allowed, names_code

__all__ = ["REPORT", "Compression", "Point", "compress"]


def compress(
    recipe: Annotated[
        str | Path | Recipe,
        Option(
            help="A file with the network, the data, and the stages.",
            kind=kinds.PATH,
            metavar="RECIPE.toml",
            positional=True,
        ),
    ],
    *,
    out: Annotated[
        str | Path | None,
        Option(help="A folder for networks, bundle and figures.", default="the recipe's name", group=options.MADE),
    ] = None,
    factory: options.Factory = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Compression:
    """Run the stages of a recipe, then measure all results in turns.

    Each stage is one call of the verb with its name, and leaves one folder in `out`. A finished stage is not repeated
    while its settings and inputs are the same. If a stage is interrupted, the verb continues it if possible. Called
    again with another recipe, it continues with the first stage that differs.

    Args:
        recipe: a TOML file (see `edgecnn.flow.recipe.Recipe`), or a Recipe.
        out: a folder for the networks, the bundle and the final figures; default: the recipe's name, in the working
            folder.
        factory: package.module:callable, if the recipe names it: your code runs only if you name it yourself.
        progress: called with (steps done, steps in total, the stage and its current step).

    Raises:
        SourceError: the recipe names code that `factory` does not name.
        DataError: the recipe or a file that it names cannot be read; pictures to evaluate on are used elsewhere.
        SpecError, UnknownNameError: an impossible value in the recipe; `out` exists and is not a compression's folder.
        MissingDependencyError: a package that a stage needs is not installed.
        EdgeCnnError: as for each verb.
    """
    if factory is not None:
        allow(factory)
    parsed = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if not isinstance(recipe, Recipe) and names_code(parsed.model):
        check_allowed(parsed.model, by=str(recipe))
    if out is None:
        if isinstance(recipe, Recipe):
            raise SpecError("a Recipe that is not read from a file has no name: give out, the folder to write")
        out = Path(recipe).stem
    parsed.check_files()
    check_packages(parsed)
    verbs = Verbs(train=train, prune=prune, convert=convert, quantize=quantize, evaluate=evaluate)
    return Flow(parsed, Path(out), verbs, progress or (lambda done, total, what: None)).run()
