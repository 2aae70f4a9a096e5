"""`edgecnn eval`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from edgecnn import options
from edgecnn.cli import _on_options, _output
from edgecnn.cli._verb import Verb
from edgecnn.errors import EdgeCnnError, SpecError
from edgecnn.options import NetworkOptions, Option

if TYPE_CHECKING:
    from edgecnn.flow.evaluation import Evaluation
    from edgecnn.flow.versus import Comparison
    from edgecnn.runners.runner import Runner
    from edgecnn.tasks.base import MetricNames

_CLASSES_SHOWN = 5  # best, and as many worst


VERB = "edgecnn._verbs.evaluate:evaluate"


def command(
    verb: Verb,
    *,
    all_artifacts: Annotated[bool, Option(name="all", help="Measure each artifact of the bundle.")] = False,
    versus: Annotated[
        str | None,
        Option(
            help="Compare on the same pictures with FORMAT:PRECISION, PATH.edge or PATH.edge:FORMAT:PRECISION.",
            metavar="ARTIFACT",
        ),
    ] = None,
    on: options.On = (),
    json: Annotated[options.Json, Option(help="Print JSON; with --all or --on, a list.")] = False,
) -> int:
    """Measure accuracy on labelled pictures: top-1, COCO mAP or mean IoU, with a confidence interval."""
    from edgecnn._verbs.versus import evaluate_versus

    if all_artifacts and versus is not None:
        raise SpecError("--versus compares one artifact with another: use --format and --precision, not --all")
    model = str(verb["model"])
    if on:
        words = verb.words()
        here_only = {name: words[name] for name in NetworkOptions.__annotations__ if name in words}
        _on_options.refuse_here_only(all=all_artifacts, versus=versus, **here_only)
        return _evaluate_on_boards(verb, on, as_json=json)

    def measure(format: str | None, precision: str | None) -> Evaluation:  # noqa: A002
        words: dict[str, Any] = {"format": format, "precision": precision, "on_start": _print_choice}
        with _output.progress_bar(" ".join(word for word in ("eval", format, precision) if word)) as progress:
            words["progress"] = progress
            if versus is not None:
                return evaluate_versus(**{**verb.words(), **words}, versus=versus)
            evaluation: Evaluation = verb(**words)
            return evaluation

    if all_artifacts:
        return _measure_all(verb, measure, as_json=json)
    evaluation = measure(verb["format"], verb["precision"])
    if json:
        _output.print_json(evaluation)
    elif versus is not None:
        _print_versus(model, cast("Comparison", evaluation))
    else:
        print_figures([evaluation])
        print_details(evaluation)
    _remark(evaluation)
    return 0


def _evaluate_on_boards(verb: Verb, on: Sequence[str], *, as_json: bool) -> int:
    """The same on boards: one table, with the artifact that each runs."""
    from edgecnn._verbs.on_boards import evaluate_on

    words = verb.words()
    outcomes = evaluate_on(words.pop("model"), words.pop("data"), on, status=_on_options.print_status, **words)
    measured = [(outcome, outcome.result) for outcome in outcomes if outcome.result is not None]
    if as_json:
        _output.print_json(_on_options.rows(outcomes))
    elif measured:
        first = measured[0][1]
        columns = ("on", "board", "format", "precision", _metric_names(first).full, "95 % interval", "n")
        rows = [
            (o.on, o.board, e.format, e.precision, f"{e.value:.4f}", f"{e.low:.4f} … {e.high:.4f}", e.n)
            for o, e in measured
        ]
        _output.print_table(f"{first.data} ({first.form})", columns, rows, numeric=columns[4:])
    if measured:
        _remark(measured[0][1])
    return _on_options.print_errors(outcomes)


def _measure_all(verb: Verb, measure: Callable[[str | None, str | None], Evaluation], *, as_json: bool) -> int:
    """One row for each artifact; failed ones are printed after the others were measured."""
    from edgecnn.flow.evaluation import artifacts_to_measure, as_bundle

    model, format, precision = verb["model"], verb["format"], verb["precision"]  # noqa: A001
    bundle = as_bundle(model)
    if bundle is None:
        raise SpecError(f"--all measures the artifacts of a bundle; {model} is a network")
    wanted = artifacts_to_measure(bundle, format=format, precision=precision, device=verb["device"])
    if not wanted:
        raise SpecError(f"{model} has no {' '.join(filter(None, (format, precision))) or 'artifact'}")
    evaluations, failed = [], []
    for artifact in wanted:
        try:
            evaluations.append(measure(artifact.format, artifact.precision))
        except EdgeCnnError as error:
            failed.append(error)
            _output.print_error(f"{artifact.format} {artifact.precision}: {error}")
    if evaluations:
        if as_json:
            _output.print_json(evaluations)
        else:
            print_figures(evaluations)
        _remark(evaluations[0])
    return max((error.exit_code for error in failed), default=0)


def _print_choice(runner: Runner) -> None:
    """Print what runs, so that the choice of a default artifact is never silent."""
    used = runner.backend.opened
    what = " ".join(word for word in (runner.format, runner.precision) if word)
    _output.print_remark(f"{runner.task.name}: {what} on {used.summary}")


def _metric_names(measured: Evaluation | Comparison) -> MetricNames:
    from edgecnn.tasks import TASKS

    return TASKS.get(measured.task).metric_names()


def print_figures(evaluations: list[Evaluation]) -> None:
    """Print the metric of each evaluation, with its interval."""
    first = evaluations[0]
    columns = ("format", "precision", _metric_names(first).full, "95 % interval", "n")
    rows = [(e.format, e.precision, f"{e.value:.4f}", f"{e.low:.4f} … {e.high:.4f}", e.n) for e in evaluations]
    _output.print_table(f"{first.data} ({first.form})", columns, rows, numeric=columns[2:])


def _print_versus(model: str, first: Comparison) -> None:
    """Both artifacts' figures, the difference, and the conclusion in a sentence."""
    second = first.versus
    elsewhere = "" if Path(second.bundle) == Path(model) else second.bundle
    columns = ("artifact", _metric_names(first).full, "95 % interval", "n")
    difference = [
        f"{round(figure, 4) + 0.0:+.4f}"  # no "-0.0000"
        for figure in (second.difference, second.difference_low, second.difference_high)
    ]
    rows = [
        (f"{first.format} {first.precision}", f"{first.value:.4f}", f"{first.low:.4f} … {first.high:.4f}", first.n),
        (
            f"{elsewhere} {second.format} {second.precision}".strip(),
            f"{second.value:.4f}",
            f"{second.low:.4f} … {second.high:.4f}",
            first.n,
        ),
        ("difference", difference[0], " … ".join(difference[1:]), first.n),
    ]
    _output.print_table(f"{first.data} ({first.form})", columns, rows, numeric=columns[1:])
    if second.agreement is not None:
        _output.print_line(f"{_metric_names(first).agreement}: {second.agreement:.2%}")
    _output.print_line(second.verdict)


def print_details(evaluation: Evaluation) -> None:
    """The metric's other figures in a line, then the best and the worst classes."""
    figures = [f"{name} {value:.4f}" for name, value in evaluation.details.items() if isinstance(value, float)]
    if figures:
        _output.print_line(", ".join(figures))
    ranked = sorted(evaluation.details.get("per_class", {}).items(), key=lambda item: -item[1])
    if not ranked:
        return
    if len(ranked) > 2 * _CLASSES_SHOWN:
        skipped = len(ranked) - 2 * _CLASSES_SHOWN
        shown = [*ranked[:_CLASSES_SHOWN], (f"… {skipped} more", None), *ranked[-_CLASSES_SHOWN:]]
    else:
        shown = ranked
    columns = ("class", _metric_names(evaluation).of_class)
    rows = [(name, "" if value is None else f"{value:.4f}") for name, value in shown]
    _output.print_table(
        "best and worst classes" if shown is not ranked else "classes", columns, rows, numeric=columns[1:]
    )


def _remark(evaluation: Evaluation) -> None:
    remarks = [f"left out: {count} {reason}" for reason, count in evaluation.left_out.items()]
    if evaluation.unknown_classes:
        names = evaluation.unknown_classes
        some = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        remarks.append(f"the network does not have {len(names)} of the data's classes: {some}")
    for remark in (*evaluation.remarks, *remarks):
        _output.print_note(remark)
