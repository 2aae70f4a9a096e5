"""`edgecnn eval`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from edgecnn.cli import _model_options as flags
from edgecnn.cli import _on_options, _output
from edgecnn.errors import EdgeCnnError, SpecError

if TYPE_CHECKING:
    from edgecnn._verbs.evaluate import Evaluation
    from edgecnn._verbs.versus import Comparison
    from edgecnn.runners.base import Runner

_METRIC_NAMES = {"map": "AP@[.50:.95]", "miou": "mean IoU", "top1": "top-1 accuracy"}
_CLASS_METRIC_NAMES = {"map": "AP", "miou": "IoU", "top1": "top-1 accuracy"}
_CLASSES_SHOWN = 5  # best, and as many worst


def command(
    model: Annotated[str, typer.Argument(help="A NAME.edge folder, or a network.", metavar="BUNDLE|MODEL")],
    data: Annotated[Path, typer.Option(help="Labelled pictures: a folder or a COCO JSON.", show_default=False)],
    format: Annotated[  # noqa: A002
        str | None,
        typer.Option(help="openvino, onnx, tflite or torch; default: the first that can run here."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; default: fp32.")] = None,
    device: Annotated[str, typer.Option(help="cpu, gpu, npu, auto, or RUNTIME:DEVICE.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Of one inference; default: all cores.")] = None,
    all_artifacts: Annotated[bool, typer.Option("--all", help="Measure each artifact of the bundle.")] = False,
    versus: Annotated[
        str | None,
        typer.Option(
            help="Compare on the same pictures with FORMAT:PRECISION, PATH.edge or PATH.edge:FORMAT:PRECISION."
        ),
    ] = None,
    ignore_label: Annotated[
        str | None, typer.Option(help="A class of the data (name or id) whose pixels don't count.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the data; default: test, else val, else all.")] = None,
    limit: Annotated[int | None, typer.Option(help="So many pictures at most, evenly spaced.")] = None,
    score: Annotated[float | None, typer.Option(help="Boxes must score above this; default: 0.01.")] = None,
    nms_iou: Annotated[
        float | None, typer.Option(help="Boxes that overlap more are one object; default: 0.65.")
    ] = None,
    weights: flags.Weights = None,
    size: flags.Size = None,
    task: flags.TaskName = None,
    head: flags.Head = None,
    labels: flags.Labels = None,
    fit: flags.FitName = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    scale: flags.Scale = None,
    color: flags.Color = None,
    replace_activations: flags.ReplaceActivations = None,
    on: _on_options.On = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --all or --on, a list.")] = False,
) -> None:
    """Measure accuracy on labelled pictures: top-1, COCO mAP or mean IoU, with a confidence interval."""
    from edgecnn._verbs.evaluate import evaluate
    from edgecnn._verbs.versus import evaluate_versus

    if all_artifacts and versus is not None:
        raise SpecError("--versus compares one artifact with another: name it with --format and --precision, not --all")
    options = flags.model_options(
        weights=weights,
        size=size,
        task=task,
        head=head,
        labels=labels,
        fit=fit,
        mean=mean,
        std=std,
        scale=scale,
        color=color,
        replace_activations=replace_activations,
    )
    how: dict[str, Any] = {
        "device": device,
        "threads": threads,
        "ignore_label": ignore_label,
        "split": split,
        "limit": limit,
        "score": score,
        "nms_iou": nms_iou,
    }
    if on:
        _on_options.refuse_here_only(all=all_artifacts, versus=versus, **options)
        _evaluate_on_boards(model, data, on, {"format": format, "precision": precision, **how}, as_json=as_json)
        return

    def measure(format: str | None, precision: str | None) -> Evaluation:  # noqa: A002
        words = {"format": format, "precision": precision, "on_start": _say_what, **how, **options}
        with _output.progress_bar(" ".join(word for word in ("eval", format, precision) if word)) as progress:
            if versus is not None:
                return evaluate_versus(model, data, versus=versus, progress=progress, **words)
            return evaluate(model, data, progress=progress, **words)

    if all_artifacts:
        _measure_all(model, format, precision, measure, device=device, as_json=as_json)
        return
    evaluation = measure(format, precision)
    if as_json:
        _output.print_json(evaluation)
    elif versus is not None:
        _print_versus(model, cast("Comparison", evaluation))
    else:
        _print_figures([evaluation])
        _print_details(evaluation)
    _remark(evaluation)


def _evaluate_on_boards(model: str, data: Path, on: list[str], words: dict[str, Any], *, as_json: bool) -> None:
    """The same on boards: one table, with what each runs on."""
    import msgspec

    from edgecnn._verbs.on_boards import evaluate_on

    outcomes = evaluate_on(model, data, on, status=_on_options.say_status, **words)
    measured = [(outcome, outcome.result) for outcome in outcomes if outcome.result is not None]
    if as_json:
        _output.print_json(
            [
                _on_options.error_row(outcome)
                if outcome.result is None
                else {"on": outcome.on, "board": outcome.board, **msgspec.to_builtins(outcome.result)}
                for outcome in outcomes
            ]
        )
    elif measured:
        first = measured[0][1]
        columns = ("on", "board", "format", "precision", _METRIC_NAMES[first.metric], "95 % interval", "n")
        rows = [
            (o.on, o.board, e.format, e.precision, f"{e.value:.4f}", f"{e.low:.4f} … {e.high:.4f}", e.n)
            for o, e in measured
        ]
        _output.print_table(f"{first.data} ({first.form})", columns, rows, numeric=columns[4:])
    if measured:
        _remark(measured[0][1])
    if code := _on_options.say_errors(outcomes):
        raise typer.Exit(code)


def _measure_all(
    model: str,
    format: str | None,  # noqa: A002
    precision: str | None,
    measure: Callable[[str | None, str | None], Evaluation],
    *,
    device: str,
    as_json: bool,
) -> None:
    """One row for each artifact; those that fail are told, after the others were measured."""
    from edgecnn._verbs.evaluate import artifacts_to_measure, as_bundle

    bundle = as_bundle(model)
    if bundle is None:
        raise SpecError(f"--all measures the artifacts of a bundle; {model} is a network")
    wanted = artifacts_to_measure(bundle, format=format, precision=precision, device=device)
    if not wanted:
        raise SpecError(f"{model} holds no {' '.join(filter(None, (format, precision))) or 'artifact'}")
    evaluations, failed = [], []
    for artifact in wanted:
        try:
            evaluations.append(measure(artifact.format, artifact.precision))
        except EdgeCnnError as error:
            failed.append(error)
            _output.people.print(
                f"{artifact.format} {artifact.precision}: {error}", style="red", markup=False, soft_wrap=True
            )
    if evaluations:
        if as_json:
            _output.print_json(evaluations)
        else:
            _print_figures(evaluations)
        _remark(evaluations[0])
    if failed:
        raise typer.Exit(max(error.exit_code for error in failed))


def _say_what(runner: Runner) -> None:
    """What runs: the choice of a default artifact is never silent."""
    used = runner.backend.opened
    what = " ".join(word for word in (runner.format, runner.precision) if word)
    _output.people.print(
        f"{runner.task.name}: {what} on {used.summary}",
        markup=False,
        soft_wrap=True,
    )


def _print_figures(evaluations: list[Evaluation]) -> None:
    first = evaluations[0]
    columns = ("format", "precision", _METRIC_NAMES[first.metric], "95 % interval", "n")
    rows = [(e.format, e.precision, f"{e.value:.4f}", f"{e.low:.4f} … {e.high:.4f}", e.n) for e in evaluations]
    _output.print_table(f"{first.data} ({first.form})", columns, rows, numeric=columns[2:])


def _print_versus(model: str, first: Comparison) -> None:
    """Both artifacts' figures, the difference, and what follows from it in a sentence."""
    second = first.versus
    elsewhere = "" if Path(second.bundle) == Path(model) else second.bundle
    columns = ("artifact", _METRIC_NAMES[first.metric], "95 % interval", "n")
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
        what = "pictures with the same best class" if first.metric == "top1" else "pixels of the same class"
        _output.stdout.print(f"{what}: {second.agreement:.2%}", markup=False)
    _output.stdout.print(second.verdict, markup=False, soft_wrap=True)


def _print_details(evaluation: Evaluation) -> None:
    """The metric's other figures in a line, then the best and the worst classes."""
    figures = [f"{name} {value:.4f}" for name, value in evaluation.details.items() if isinstance(value, float)]
    _output.stdout.print(", ".join(figures), markup=False)
    ranked = sorted(evaluation.details.get("per_class", {}).items(), key=lambda item: -item[1])
    if len(ranked) > 2 * _CLASSES_SHOWN:
        skipped = len(ranked) - 2 * _CLASSES_SHOWN
        shown = [*ranked[:_CLASSES_SHOWN], (f"… {skipped} more", None), *ranked[-_CLASSES_SHOWN:]]
    else:
        shown = ranked
    columns = ("class", _CLASS_METRIC_NAMES[evaluation.metric])
    rows = [(name, "" if value is None else f"{value:.4f}") for name, value in shown]
    _output.print_table(
        "best and worst classes" if shown is not ranked else "classes", columns, rows, numeric=columns[1:]
    )


def _remark(evaluation: Evaluation) -> None:
    remarks = [f"left out: {count} {reason}" for reason, count in evaluation.left_out.items()]
    if evaluation.unknown_classes:
        names = evaluation.unknown_classes
        some = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        remarks.append(f"the network doesn't have {len(names)} of the data's classes: {some}")
    for remark in (*evaluation.remarks, *remarks):
        _output.people.print(f"note: {remark}", style="yellow", markup=False, soft_wrap=True)
