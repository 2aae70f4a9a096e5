"""Tables and progress: readable at 80 columns, plain where nobody looks at a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.cli import _output, _progress
from edgecnn.cli._progress import StepLines
from edgecnn.cli._table import lay_out, length

NAMES = st.from_regex(r"[a-z0-9_./:-]{1,60}", fullmatch=True)
NUMBERS = st.floats(-1e6, 1e6).map(lambda value: f"{value:.2f}")


@given(
    rows=st.lists(st.tuples(NAMES, st.lists(NUMBERS, min_size=12, max_size=12)), min_size=1, max_size=6),
    width=st.integers(40, 140),
)
def test_no_line_is_wider_than_asked_no_number_cut_no_name_lost(rows: list[tuple[str, list[str]]], width: int) -> None:
    headings = [f"p{i} ms" for i in range(12)]
    lines = lay_out(
        ["artifact", *headings], [(name, *figures) for name, figures in rows], numeric=headings, width=width
    )
    assert max(map(len, lines)) <= width
    words = "\n".join(lines).split()
    assert all(figure in words for _, figures in rows for figure in figures)
    for part in "\n".join(lines).split("\n\n"):
        *above, rule, _ = re.split(r"^(-+)", part, maxsplit=1, flags=re.MULTILINE)
        below = part.removeprefix(above[0]).splitlines()[1:]
        assert "".join(line[: len(rule)].strip() for line in below) == "".join(name for name, _ in rows)
    assert all(heading.split()[0] in words for heading in headings)


def test_a_table_that_is_too_wide_becomes_several_each_with_the_rows_names() -> None:
    headings = [f"figure {i:02}" for i in range(20)]
    lines = lay_out(
        ["format", "precision", *headings],
        [("openvino", "fp32", *["12345.67"] * 20), ("onnx", "int8", *["0.01"] * 20)],
        numeric=headings,
        width=80,
    )
    parts = "\n".join(lines).split("\n\n")
    assert len(parts) > 1
    for part in parts:
        assert re.search(r"^openvino +fp32 ", part, re.MULTILINE)
        assert re.search(r"^onnx +int8 ", part, re.MULTILINE)


def test_columns_stand_below_their_headings_and_numbers_flush_right() -> None:
    lines = lay_out(["name", "ms"], [("a", "1.5"), ("bc", "12.25")], numeric=["ms"])
    assert lines == ["name     ms", "----  -----", "a       1.5", "bc    12.25"]


def test_wide_characters_and_accents_take_the_columns_that_they_take() -> None:
    assert (length("犬"), length("e\u0301"), length("★")) == (2, 1, 1)
    lines = lay_out(["name", "n"], [("犬", 1), ("dog", 2)], numeric=["n"])
    assert [length(line) for line in lines] == [7, 7, 7, 7]


def test_an_empty_column_takes_no_room_and_no_heading_takes_no_line() -> None:
    assert lay_out(["name", "remark"], [("a", ""), ("b", None)]) == ["name", "----", "a", "b"]
    assert lay_out(["", ""], [("network", "yolox")], keys=1) == ["network  yolox"]


def test_what_is_piped_is_plain_and_80_columns_wide(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    headings = ["p50 ms", "p90 ms", "remark"]
    _output.print_table(
        "a title " * 20, ["layer", *headings], [("x" * 90, "1", "2", "word " * 40)], numeric=headings[:2]
    )
    _output.print_note("a remark")
    output = capsys.readouterr()
    assert max(map(len, output.out.splitlines())) <= 80
    assert (output.out + output.err).isascii()
    assert "\x1b" not in output.out + output.err


def test_a_terminal_says_how_wide_a_table_may_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ("backbone.features.12.convolution.weight", "1.25", "2.50")
    for columns, lines in (("120", 3), ("40", 5)):
        monkeypatch.setenv("COLUMNS", columns)
        _output.print_table("", ["layer", "a ms", "b ms"], [row], numeric=["a ms", "b ms"])
        output = capsys.readouterr().out.splitlines()
        assert len(output) <= lines
        assert max(map(len, output)) <= int(columns)


def test_a_stream_without_unicode_gets_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    _output.print_line("★ 犬 dog")
    assert raw.getvalue() == b"? ? dog\n"


# ---------------------------------------------------------------------- progress
def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def test_without_a_terminal_each_step_is_a_line_with_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    with _output.progress_bar("reading pictures") as progress:
        progress(0, 3)
        progress(1, 3, "calibrating")
        for done in range(100):
            progress(done, 100, "calibrating")
        progress(2, 3, "writing")
    lines = lines_of(capsys)
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == [
        "reading pictures (0 of 3)",
        "calibrating (1 of 3)",
        "writing (2 of 3)",
    ]


def test_a_step_whose_figures_alone_change_does_not_flood_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with _output.progress_bar("training") as progress:
        for step in range(1000):
            progress(step, 1000, f"epoch {step // 100}: loss {1 / (step + 1):.3f}")
    assert len(lines_of(capsys)) <= 3


def test_silence_is_broken_while_a_step_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with StepLines("converting", silence_s=0.2) as lines:
        lines.update(0, 0, "converting tflite")
        time.sleep(0.7)
    output = lines_of(capsys)
    assert len(output) >= 2
    assert "converting tflite, for 0 s" in output[1]


def test_nothing_is_printed_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with StepLines("converting", silence_s=0.1):
        pass
    time.sleep(0.3)
    assert lines_of(capsys) == []


def test_a_log_without_a_reader_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stderr", Gone())
    with _output.progress_bar("working") as progress:
        progress(0, 1, "a step")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_progress, "is_terminal", lambda _: True)
    with _output.progress_bar("working") as progress:
        progress(1, 2, "a step with [brackets]")
    assert not any(re.match(r"\d\d:\d\d:\d\d", line) for line in lines_of(capsys))


# ---------------------------------------------------------------------- the verbs' own tables
def test_benchs_table_has_names_and_whole_numbers_at_80_columns(
    capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecnn.cli import bench

    figures = ["1234.56", "1234.57", "–", "0.11", "1234.00", "0.10", "4321", "1234", "12.3"]
    rows = [
        ("★", "openvino", "fp32", 16, 1024, *figures, ""),
        ("", "tflite", "int8-a16", 16, 1024, *figures, "unstable"),
    ]
    _output.print_table("street.edge", bench.COLUMNS, rows, numeric=bench.COLUMNS[3:-1], keys=bench.KEYS)
    output = capsys.readouterr().out
    assert_readable(output)
    words = output.split()
    for row in rows:
        assert all(str(cell) in words for cell in row if cell != "")
    assert words.count("openvino") == words.count("int8-a16") >= 2  # each part names its rows


@pytest.mark.parametrize("name", ["default-detector", "default-segmenter"])
def test_inspects_tables_fit(
    name: str,
    capsys: pytest.CaptureFixture[str],
    assert_readable: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgecnn.cli._main import main

    assert main(["inspect", name]) == 0
    output = capsys.readouterr().out
    assert_readable(output)
    from edgecnn.bundle import Bundle

    assert all(artifact.label in output for artifact in Bundle.open(name).manifest.artifacts)


def printed_on_a_terminal(words: list[str], *, columns: int) -> list[str]:
    """The lines of the program on a terminal of that width, its stdout and stderr together, without colours."""
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    program = subprocess.Popen(
        [sys.executable, "-m", "edgecnn", *words], stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    printed = bytearray()
    with contextlib.suppress(OSError):  # EIO: the program has closed the terminal
        while piece := os.read(screen, 65536):
            printed += piece
    os.close(screen)
    assert program.wait() == 0, printed.decode()
    return re.sub(r"\x1b\[\d+m", "", printed.decode()).splitlines()


@pytest.mark.parametrize("columns", [80, 60])
def test_sentences_fit_a_terminal_and_stay_whole_in_a_pipe(columns: int) -> None:
    words = ["inspect", "default-detector"]
    shown = printed_on_a_terminal(words, columns=columns)
    assert max(map(len, shown)) <= columns
    piped = subprocess.run([sys.executable, "-m", "edgecnn", *words], capture_output=True, text=True, check=True)
    sentences = [line for line in piped.stdout.splitlines() if len(line) > 80]
    assert sentences, "nothing here is long: this test shows nothing"
    assert all(" ".join(sentence.split()) in " ".join(" ".join(shown).split()) for sentence in sentences)


def test_every_line_of_a_verb_is_printed_in_one_place() -> None:
    """What wraps sentences is `edgecnn.cli._output`; only help, JSON and progress write for themselves."""
    own = {"_main.py", "_output.py", "_progress.py"}
    writes = re.compile(r"sys\.std(out|err)\.write|\bprint\(")
    verbs = [file for file in Path(_output.__file__).parent.glob("*.py") if file.name not in own]
    assert [file.name for file in verbs if writes.search(file.read_text(encoding="utf-8"))] == []


@pytest.mark.torch
def test_converts_tables_fit_with_int8_and_refusals(
    capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecnn.bundle import Bundle, Refusal
    from edgecnn.bundle.evidence import AccuracyEvidence, LayerDamage, QuantizationEvidence, TwinLatency
    from edgecnn.cli.convert import print_conversion
    from edgecnn.converters.quantize_bundle import Conversion

    shipped = Bundle.open("default-detector")
    layer = "backbone.backbone.dark5.1.convolution_with_a_long_name.depthwise"
    int8 = QuantizationEvidence(
        recipe="static_wi8_ai8",
        calibration=None,
        float_layers=(layer,),
        int8_mac_share=0.5612,
        snr_db={"boxes": 31.0, "scores": 28.0},
        damage=(LayerDamage(name=layer, damage=0.01234, kept_float=True),),
        latency=TwinLatency(
            latency_ms=10.25, float_latency_ms=15.75, ratio=1.54, low=1.51, high=1.57, device_name="CPU", threads=2,
        ),
    )  # fmt: skip
    accuracy = AccuracyEvidence(
        metric="map", value=0.3305, low=0.3, high=0.36, n=128, data="val", precision="int8", device="cpu",
        reference_value=0.3342,
    )  # fmt: skip
    first = shipped.manifest.artifacts[0]
    evidence = msgspec.structs.replace(first.evidence, quantization=int8, accuracy=(accuracy,))
    made = msgspec.structs.replace(first, precision="int8", evidence=evidence)
    gated = msgspec.structs.replace(first, evidence=msgspec.structs.replace(first.evidence, accuracy=(accuracy,)))
    manifest = msgspec.structs.replace(shipped.manifest, artifacts=(gated, made))
    refused = Refusal(format="tflite", precision="int8", error="AccuracyError", reason="it loses .02")
    bundle = Bundle(Path("street.edge"), manifest)
    print_conversion(Conversion(bundle=bundle, refused=(refused,), warnings=()), Path("street.edge"))
    output = capsys.readouterr()
    assert_readable(output.out)
    for word in ("10.25", "15.75", "1.54x", "0.3305", "56%", layer.split(".")[-1], "0.012"):
        assert word in output.out, word
    assert "refused: tflite int8: AccuracyError: it loses .02" in output.err


def test_evals_tables_fit(
    capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecnn.cli import eval as command
    from edgecnn.flow.evaluation import Evaluation

    classes = {f"a class with a long name, number {i}, of a data set that has such names": i / 30 for i in range(30)}
    evaluation = Evaluation(
        metric="map", value=0.3342, low=0.3012, high=0.3671, n=5000, format="openvino", precision="int8-dynamic",
        device="cpu", device_name="CPU", runtime="openvino", task="detect", data="/a/long/path/of/data/val",
        form="COCO JSON", score_threshold=0.01, nms_iou=0.65, ignore_label=None, details={"per_class": classes},
    )  # fmt: skip
    command.print_figures([evaluation, evaluation])
    command.print_details(evaluation)
    output = capsys.readouterr().out
    assert_readable(output)
    for word in ("0.3342", "0.3012", "0.3671", "5000", "int8-dynamic", "0.9667"):
        assert word in output, word


def test_trains_table_fits_and_counts_in_the_singular(
    capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecnn.cli.train import print_training
    from edgecnn.training.training import Training

    row = {"epoch": 1.0, "metric": 0.5, "box_loss": 1.25, "learning_rate": 1e-3}
    training = Training(
        folder=Path("mine.model"),
        metric="map",
        value=0.5,
        before=None,
        best_epoch=1,
        epochs=1,
        stopped_early=False,
        train=10,
        validation=1,
        new_layers=(),
        history=[row],
    )
    print_training(training)
    output = capsys.readouterr().out
    assert_readable(output)
    assert "after 1 epoch;" in output
    assert "on 1 picture not used" in output
