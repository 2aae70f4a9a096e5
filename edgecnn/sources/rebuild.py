"""Builds the network of a blueprint."""

from __future__ import annotations

from dataclasses import replace

from edgecnn.errors import SourceError
from edgecnn.printable import shortened
from edgecnn.sources.activations import replace_activations
from edgecnn.sources.blueprint import Blueprint
from edgecnn.sources.grow import grow_head
from edgecnn.sources.load import load_model
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.own_code import check_allowed, names_code
from edgecnn.sources.table import is_named, named_forms


def build(blueprint: Blueprint) -> TrainedModel:
    """The network with random weights, the same every time.

    Raises:
        SourceError: the blueprint names code that the user didn't name, or a file.
        EdgeCnnError: as `load_model` does.
    """
    if names_code(blueprint.model):
        check_allowed(blueprint.model, by="the description of a saved network")
    elif not is_named(blueprint.model):
        raise SourceError(
            f"the description of a saved network names {shortened(blueprint.model)!r}: expected a network that "
            f"edgecnn builds from its name ({' or '.join(named_forms())})"
        )
    if blueprint.head:
        grown = load_model(blueprint.model)
        built = grow_head(grown, blueprint.head, labels=blueprint.labels, size=blueprint.size)
    else:
        options = {"task": blueprint.task or None, "head": blueprint.decode or None}
        built = load_model(blueprint.model, labels=blueprint.labels, size=blueprint.size, **options)
    if blueprint.activations:
        built = replace_activations(built, blueprint.activations)
    return replace(built, blueprint=blueprint, warnings=())
