"""`edgecnn compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb

if TYPE_CHECKING:
    from edgecnn.measure.speed_difference import SpeedComparison, SpeedDifference

VERB = "edgecnn._verbs.compare:compare"

_WORDS = {"faster": "faster", "slower": "slower", "same": "same within noise"}


def command(verb: Verb, *, json: options.Json = False) -> int:
    """Compare two latency measurements of a machine: a ratio with its interval; exit code 1 if it became slower."""
    comparison: SpeedComparison = verb()
    if json:
        _output.print_json(as_document(comparison))
    else:
        print_comparison(comparison)
    return print_verdict(comparison)


def as_document(comparison: SpeedComparison) -> dict[str, Any]:
    """One JSON object: all artifacts together at the top, then one by one."""
    import msgspec

    total = comparison.total
    return {
        "ratio": total.ratio,
        "low": total.low,
        "high": total.high,
        "verdict": total.verdict,
        "allowed": comparison.allowed,
        "artifacts": [msgspec.to_builtins(one) for one in comparison.artifacts],
        "notes": list(comparison.notes),
    }


def print_comparison(comparison: SpeedComparison) -> None:
    """A table, one row for each artifact."""
    _output.print_table(
        "latency: second over first, with the 99 % interval (above 1 is slower)",
        ("artifact", "before ms", "after ms", "ratio", "interval", "verdict"),
        [_cells(one) for one in comparison.artifacts],
        numeric=("before ms", "after ms", "ratio"),
        keys=1,
    )


def print_verdict(comparison: SpeedComparison) -> int:
    """Print notes and what is too slow; returns the exit code."""
    for note in comparison.notes:
        _output.print_note(note)
    for one in comparison.too_slow:
        _output.print_error(
            f"{one.artifact} is slower: {one.ratio:.3f} times as long (at least {one.low:.3f}); "
            f"the limit is {1 + comparison.allowed:.3f}"
        )
    return 1 if comparison.too_slow else 0


def _cells(one: SpeedDifference) -> tuple[object, ...]:
    return (
        one.artifact,
        f"{one.before_ms:.2f}",
        f"{one.after_ms:.2f}",
        f"{one.ratio:.3f}",
        f"{one.low:.3f} to {one.high:.3f}",
        _WORDS[one.verdict],
    )
