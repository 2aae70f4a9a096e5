"""Decides which formats and precisions to make, for a target or without one."""

from __future__ import annotations

from collections.abc import Sequence

from edgecnn.bundle import PRECISIONS, QUANTIZED
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.formats import FORMATS, convertible
from edgecnn.frame import FrameSpec
from edgecnn.options.kinds import one_or_more
from edgecnn.targets import Target
from edgecnn.tasks import Task


def artifacts_to_make(
    formats: str | Sequence[str] | None,
    precisions: str | Sequence[str] | None,
    target: Target | None,
    *,
    has_pictures: bool,
) -> tuple[list[str], list[str], list[str]]:
    """Formats and precisions to write, and notes for the user.

    Args:
        formats, precisions: as requested, one or several; None for the defaults.
        target: the target, if there is one.
        has_pictures: whether there are pictures for int8 calibration.

    Raises:
        SpecError, UnknownNameError: the request is not possible, or not for this target.
        MissingDependencyError: no converter is installed for the target's formats.
    """
    wanted = _formats(None if formats is None else one_or_more(formats), target)
    asked = None if precisions is None else one_or_more(precisions)
    made, notes = _precisions(asked, target, has_pictures=has_pictures)
    if formats is None and target is None and set(made) & set(QUANTIZED):
        # Formats are chosen by default here: one without int8 would only be refused.
        wanted = [name for name in wanted if FORMATS.get(name).int8_writer is not None]
    if not wanted:
        raise SpecError("no converter is installed: pip install 'edgecnn[convert]'")
    for name in wanted:
        FORMATS.get(name)  # raises for an unknown name, with the nearest known names
    for name in made:
        if name not in PRECISIONS:
            raise UnknownNameError("precision to convert to", name, PRECISIONS)
    return wanted, made, notes


def _formats(asked: Sequence[str] | None, target: Target | None) -> list[str]:
    """The requested formats, otherwise those of the target's runtimes, if they can be written here."""
    installed = convertible()
    if target is None:
        return list(dict.fromkeys(asked if asked is not None else installed))
    if asked is None:
        here = [name for name in target.formats if name in installed]
        if not here:
            FORMATS.get(target.formats[0]).load_converter()  # raises with what to install
        return here
    for name in asked:
        if not target.opens(FORMATS.get(name)):  # raises for an unknown name, with the nearest known names
            raise SpecError(f"target {target.name} opens {', '.join(target.formats)}; --to {name} is not among them")
    return list(dict.fromkeys(asked))


def _precisions(
    asked: Sequence[str] | None, target: Target | None, *, has_pictures: bool
) -> tuple[list[str], list[str]]:
    """The precisions to write, and notes for the user."""
    if target is None:
        return list(dict.fromkeys(("fp32",) if asked is None else asked)), []
    if asked is not None:
        for name in asked:
            if name in PRECISIONS and name not in target.precisions:
                known = ", ".join(target.precisions)
                raise SpecError(f"target {target.name} runs {known}, not --precision {name}")
        return list(dict.fromkeys(asked)), []
    unmade = [name for name in target.makes if name in QUANTIZED and not has_pictures]
    made = [name for name in target.makes if name not in unmade]
    if not made or set(unmade) & set(target.compiled):  # the precision that the target exists for
        return list(target.makes), []
    notes = [f"{', '.join(unmade)} is worth trying on {target.name}: give --calibration DATA"] if unmade else []
    return made, notes


def target_notes(target: Target, frame: FrameSpec, task: Task) -> list[str]:
    """Notes for the user about a network on a target."""
    notes = [f"{target.name}: {note}" for note in target.notes]
    largest = target.largest_side_px.get(task.name)
    if largest is not None and max(frame.height_px, frame.width_px) > largest:
        notes.append(
            f"{target.name}: a frame of {frame.width_px}x{frame.height_px} px is probably too slow; measure --size "
            f"{largest} too, its latency and its accuracy"
        )
    return notes
