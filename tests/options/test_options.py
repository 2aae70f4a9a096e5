"""Options: one definition of each, of which the command line, files and the reference page are made."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from edgecnn.cli import _completion
from edgecnn.cli._command import VerbCommand, help_rows
from edgecnn.cli._main import app, main
from edgecnn.cli._verb import VERBS, VerbDefinition, define
from edgecnn.errors import DataError, EdgeCnnError, SpecError, near_path
from edgecnn.options import Setting, kinds, parse_size
from edgecnn.options.toml import read_toml
from tests.builders.repository import REPOSITORY

# What verbs took before their options had one definition: programs and habits rely on it.
OPTIONS = {
    "train": "model data out validate-on split head keep-classes ignore-label teacher teacher-weights epochs "
    "batch optimizer learning-rate schedule weight-decay l1 dropout freeze-backbone early-stop-epochs "
    "quantize-for workers seed settings weights size task fit mean std scale color "
    "replace-activations json",
    "prune": "model out macs parameters latency of importance round-to keep steps data split validate-on "
    "ignore-label epochs settings distill weights size task head labels replace-activations json",
    "compress": "recipe out json",
    "convert": "model out to precision target batch data max-drop ignore-label allow-drop keep-slower weights size "
    "task head labels fit mean std scale color replace-activations calibration calibration-count seed "
    "evaluate-on budget-minutes plot json",
    "quantize": "bundle out to precision data split max-drop ignore-label allow-drop keep-slower calibration "
    "calibration-count seed evaluate-on budget-minutes plot json",
    "eval": "model data format precision device threads all versus ignore-label split limit score nms-iou "
    "weights size task head labels fit mean std scale color replace-activations on json",
    "bench": "bundle device format precision threads data picture-size profile iterations duration timeout "
    "record on plot layers layers-plot report json",
    "run": "bundle source camera camera-size camera-fps camera-format rtsp-transport device format precision "
    "threads score nms-iou track count-line zone show record jsonl mqtt mqtt-qos home-assistant "
    "metrics web web-token limit max-age-ms give-up-after json",
    "devices": "device on json",
    "inspect": "bundle layers data plot json",
    "demo": "out video json",
}
WITH_NO = {"bench": {"record"}, "prune": {"distill"}}


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> VerbDefinition:
    return define(request.param)


def given(verb: VerbDefinition, words: list[str]) -> dict[str, Any]:
    command = VerbCommand(verb)
    with command.make_context(verb.name, words) as ctx:
        return command.given(ctx)


# ---------------------------------------------------------------------- definitions
def test_every_option_there_was_is_there(verb: VerbDefinition) -> None:
    assert set(OPTIONS.get(verb.name, "").split()) <= {setting.name for setting in verb.settings}


def test_an_option_can_be_switched_off_only_where_that_means_something(verb: VerbDefinition) -> None:
    can_be = {setting.name for setting in verb.settings if setting.option.negative}
    assert can_be & set(OPTIONS.get(verb.name, "").split()) == WITH_NO.get(verb.name, set())


def test_every_option_is_a_parameter_of_the_functions_that_python_users_call(verb: VerbDefinition) -> None:
    both = [*inspect.signature(verb.function).parameters.values(), *inspect.signature(verb.command).parameters.values()]
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in both)
    for setting in verb.settings:
        assert takes_more or setting.parameter in {parameter.name for parameter in both}, setting.name


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("onnx", ["onnx"]),
        (("onnx", "tflite"), ["onnx", "tflite"]),
        (Path("a.pub"), [Path("a.pub")]),
        ((), []),
        (0, [0]),
    ],
)
def test_a_text_or_a_path_given_in_python_for_several_is_one(given: Any, values: list[Any]) -> None:
    assert kinds.one_or_more(given) == values


def test_every_option_says_what_it_does_in_a_sentence(verb: VerbDefinition) -> None:
    for setting in verb.settings:
        assert len(setting.help) > 8, setting.name
        assert not setting.help.startswith(("Of ", "As for")), setting.name
        assert setting.help.rstrip().endswith("."), setting.name
        assert "`" not in setting.help or setting.option.help, setting.name


def test_long_lists_of_options_stand_in_groups(verb: VerbDefinition) -> None:
    assert (
        all(setting.option.group or setting.option.positional for setting in verb.settings) or len(verb.settings) < 45
    )
    assert max(len(rows) for rows in help_rows(verb).values()) <= 16


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_fits_80_columns_and_shows_every_option_whole(
    verb: VerbDefinition, flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb.name, flag]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert not set("│╭╰─\x1b") & set(said)
    together = " ".join(said.split())
    for setting in verb.settings:
        assert setting.spelling in said, setting.name
        assert "{" not in said
        for word in setting.help.split():
            assert word in together or "{" in word or "-" in word, (setting.name, word)


def test_brackets_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-h"]) == main(["run", "-h"]) == 0
    said = capsys.readouterr().out
    assert "[distillation]" in said
    assert "[augmentation]" in said
    assert "[NAME=]x1,y1,x2,y2" in said
    assert "[[HOST:]PORT]" in said


def test_defaults_in_the_help_are_the_signatures() -> None:
    said = {setting.name: setting.default_text for setting in define("bench").settings}
    assert said["picture-size"] == "640x480"
    assert said["timeout"] == "300"
    assert said["record"] == "on"
    assert {s.name: s.default_text for s in define("train").settings}["learning-rate"] == "0.001"


def test_names_of_formats_and_tasks_come_from_their_tables(capsys: pytest.CaptureFixture[str]) -> None:
    from edgecnn.options.lists import names_of

    assert main(["eval", "-h"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for word in ("formats", "tasks") for name in names_of(word))


def test_the_reference_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run python docs/generate.py"


# ---------------------------------------------------------------------- the command line and files
SAMPLES: dict[str, tuple[str, Any]] = {
    kinds.TEXT.expected: ("some text", "some text"),
    kinds.PATH.expected: ("a/b.c", "a/b.c"),
    kinds.WHOLE.expected: ("3", 3),
    kinds.NUMBER.expected: ("-0.5", -0.5),
    kinds.WORDS.expected: ("one,two", ["one", "two"]),
    kinds.WHOLES.expected: ("1,2", [1, 2]),
    kinds.THREE.expected: ("0.1,0.2,0.3", [0.1, 0.2, 0.3]),
    kinds.FRAME_SIZE.expected: ("512x256", "512x256"),
    kinds.PICTURE_SIZE.expected: ("640x480", "640x480"),
    kinds.SOURCE.expected: ("0", 0),
    kinds.ADDRESS.expected: ("8088", 8088),
    kinds.COUNT_OR_NAME.expected: ("16", 16),
    kinds.integer_between(0, 2).expected: ("1", 1),
}


def sample(setting: Setting) -> tuple[list[str], Any]:
    """An option as words of the command line, and as a file has it."""
    if setting.kind.is_flag:
        return [f"--{setting.name}"], True
    word, value = SAMPLES.get(setting.kind.expected) or (setting.kind.words[0], setting.kind.words[0])
    if setting.option.positional:
        return [word], value
    if setting.option.repeat:
        return [f"--{setting.name}", word, f"--{setting.name}", word], [value, value]
    if setting.option.pair:
        return [f"--{setting.name}", word, word], [value, value]
    return [f"--{setting.name}", word], value


def as_toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(as_toml(each) for each in value)}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


@pytest.mark.parametrize("dash", ["-", "_"])
def test_a_file_says_what_the_command_line_says(verb: VerbDefinition, dash: str, tmp_path: Path) -> None:
    words: list[str] = []
    lines = []
    for setting in verb.settings:
        said, value = sample(setting)
        words += said
        lines.append(f"{setting.name.replace('-', dash)} = {as_toml(value)}")
    file = tmp_path / "all.toml"
    file.write_text("\n".join(lines))
    by_words = given(verb, words)
    assert set(by_words) == {setting.key for setting in verb.settings}
    assert given(verb, ["--config", str(file)]) == by_words


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('bundle = "a.edge"\nsource = "a.jpg"\nlimit = 5\ntrack = true\n')
    said = given(define("run"), ["b.edge", "--limit", "7", "--config", str(file)])
    assert (said["bundle"], said["source"], said["limit"], said["track"]) == (Path("b.edge"), "a.jpg", 7, True)


def test_what_is_not_said_is_left_to_the_functions_defaults() -> None:
    assert given(define("run"), ["a.edge", "b.jpg"]) == {"bundle": Path("a.edge"), "source": "b.jpg"}


def test_a_camera_on_the_command_line_takes_the_place_of_the_files_source(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('bundle = "a.edge"\nsource = "a.jpg"\n')
    said = given(define("run"), ["--camera", "0", "--config", str(file)])
    assert said["camera"] == ("0",)
    assert "source" not in said
    file.write_text("macs = 0.5\n")
    assert "macs" not in given(define("prune"), ["m", "--out", "o", "--latency", "0.5", "--config", str(file)])


def test_negative_numbers_are_values(tmp_path: Path) -> None:
    said = given(define("run"), ["a.edge", "b", "--count-line", "-5,0,10,10", "--score", "-1"])
    assert said["count_line"] == ("-5,0,10,10",)
    assert said["score"] == -1


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGECNN_MQTT", "mqtt://u:p@h/t")
    monkeypatch.setenv("EDGECNN_WEB_TOKEN", "token")
    file = tmp_path / "run.toml"
    file.write_text('mqtt = "mqtt://file/t"\n')
    said = given(define("run"), ["a.edge", "b", "--config", str(file), "--web-token", "other"])
    assert (said["mqtt"], said["web_token"]) == ("mqtt://u:p@h/t", "other")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("limt = 3", "no option is called 'limt'; did you mean limit"),
        ("max_age = 3", "did you mean max-age-ms"),
        ("[run]\nlimit = 1", "no option is called 'run'"),
        ('limit = "3"', "limit must be a whole number, found the text '3'"),
        ("limit = 3.0", "limit must be a whole number, found 3.0"),
        ("limit = true", "limit must be a whole number, found true"),
        ("score = [0.5]", "score must be a number, found a list of 1"),
        ("track = 1", "track must be true or false, found 1"),
        ('track = "yes"', "track must be true or false"),
        ("record = 3", "record must be a path, found 3"),
        ("count-line = [3]", "count-line must be text, found 3"),
        ("camera-size = 640", "camera-size must be WIDTHxHEIGHT"),
        ("mqtt_qos = 3", "mqtt-qos must be a whole number from 0 to 2, found 3"),
        ("max-age-ms = 1\nmax_age_ms = 1", "is given twice"),
        ("device = {a = 1}", "device must be text, found a table"),
        ("limit = 1979-05-27", "limit must be a whole number"),
        ("limit = ", "is not TOML"),
        (f"a = {'[' * 50000}", "is not TOML"),
        (f"limit = {'9' * 6000}", "run.toml"),
        ("limit = 1\n" * 40000, "larger than"),
        ("a\x1b[31m = 1", "is not TOML"),
        ('"\\u001b[31m" = 1', r"no option is called '\x1b[31m'"),
    ],
    ids=lambda text: text[:30],
)
def test_a_file_that_is_wrong_is_an_error_in_one_line(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(line)
    assert main(["run", "a.edge", "b.jpg", "--config", str(file)]) == 2
    said = capsys.readouterr()
    assert says.replace("\\\\", "\\") in said.err.replace("\\\\", "\\")
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def test_a_file_that_cannot_be_read_is_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "bytes.toml").write_bytes(b'limit = "\xff"')
    (tmp_path / "run.toml").write_text("")
    for name in ("pipe.toml", "bytes.toml", "ru.toml", ".", "a\x00b"):
        assert main(["run", "a.edge", "b.jpg", "--config", f"{tmp_path}/{name}"]) == 2, name
        assert len(capsys.readouterr().err.splitlines()) == 1, name


@pytest.mark.runtime
def test_run_with_a_file_does_what_the_flags_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    import cv2

    from edgecnn.photographs import photographs

    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), next(iter(photographs().values())))
    said = []
    for words, name in ((["--format", "openvino", "--score", "0.6"], "flags"), ([], "file")):
        lines = tmp_path / f"{name}.jsonl"
        file = tmp_path / "run.toml"
        source = ["default-detector", str(picture), "--jsonl", str(lines)]
        if not words:
            said_so = ['bundle = "default-detector"', f'source = "{picture}"', f'jsonl = "{lines}"', "score = 0.6"]
            file.write_text("\n".join([*said_so, 'format = "openvino"']))
            source, words = [], ["--config", str(file)]
        assert main(["run", *source, *words, "--threads", "1"]) == 0
        capsys.readouterr()
        record = lines.read_text()
        said.append(record[record.index('"detections"') :])
    assert said[0] == said[1]


# ---------------------------------------------------------------------- what is near
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["convrt"], "'convert'"),
        (["run", "a", "b", "--scor", "1"], "--score"),
        (["convert", "x:y", "--out", "o", "--fit", "leterbox"], "did you mean letterbox?"),
        (["inspect", "default-detecto"], "did you mean default-detector?"),
        (["run", "default-detecto", "x.jpg"], "did you mean default-detector?"),
        (["bench", "stret.edge"], "did you mean street.edge?"),
        pytest.param(["run", "default-detector", "cat.jp"], "did you mean cat.jpg?", marks=pytest.mark.runtime),
        pytest.param(["eval", "default-detector", "--data", "dat"], "did you mean data?", marks=pytest.mark.runtime),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_similar_names_are_suggested(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "street.edge").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "cat.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_without_a_similar_name_there_is_no_suggestion(tmp_path: Path) -> None:
    assert near_path(tmp_path / "street.edge") == near_path(tmp_path / "no" / "street.edge") == ""


# ---------------------------------------------------------------------- sizes
@pytest.mark.parametrize("text", ["", "x", "0x3", "3x", "x3", "3x4x5", "-3x4", "٣x4", "1e3x4", "9999999x3", "320"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_a_size_is_width_by_height_everywhere() -> None:
    assert parse_size("1280x720") == (1280, 720)
    assert parse_size("320", square=True) == (320, 320)
    assert given(define("convert"), ["m", "--out", "o", "--size", "512x256"])["size"] == (256, 512)  # height, width
    assert given(define("run"), ["a", "b", "--camera-size", "640x480"])["camera_size"] == (640, 480)


# ---------------------------------------------------------------------- completion
@pytest.mark.parametrize(
    ("line", "offered"),
    [("edgecnn qu", "quantize"), ("edgecnn run --scor", "--score"), ("edgecnn convert --fit le", "letterbox")],
)
def test_a_shell_is_offered_words(
    line: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_EDGECNN_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert _completion.asked()
    assert _completion.complete(app) == 0
    assert offered in capsys.readouterr().out


@pytest.mark.parametrize(("shell", "place"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish")])
def test_completion_is_installed_once(
    shell: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if (tmp_path / place).suffix == "" and shell != "fish":
        (tmp_path / place).write_text("# mine")
    assert main(["--install-completion", shell]) == main(["--install-completion", shell]) == 0
    assert "_EDGECNN_COMPLETE" in next(path for path in tmp_path.rglob("*edgecnn*") if path.is_file()).read_text()
    if shell != "fish":
        start = (tmp_path / place).read_text().splitlines()
        assert start[0] == "# mine"
        assert len(start) == 2


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--show-completion", "cmd.exe"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_an_option_without_its_value_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((click.UsageError, EdgeCnnError)):
        given(define("run"), ["a", "b", "--limit"])
    assert main(["run", "a", "b", "--limit"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0o" + "7" * 9000, "[1, {deep = 0b" + "1" * 65 + "}]"])
def test_an_integer_that_toml_does_not_have_is_refused(tmp_path: Path, number: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"limit = {number}\n")
    with pytest.raises(DataError, match=r"run\.toml is not TOML: an integer has \d+ bits"):
        read_toml(file, "a recipe")
