"""The command line: help, exit codes, and errors in one line."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgecnn
from edgecnn import __version__
from edgecnn.cli._main import VERBS, main


@pytest.fixture(autouse=True)
def _signal_handlers_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_command_alone_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert all(verb in said.out for verb in VERBS)
    assert said.err == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert verb in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_one_file_of_the_command_line(verb: str) -> None:
    import edgecnn.cli

    assert (Path(edgecnn.cli.__path__[0]) / f"{verb}.py").is_file()


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgecnn {__version__}\n"


def test_an_unknown_verb_names_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convrt", "x"]) == 2
    said = capsys.readouterr()
    assert "convrt" in said.err
    assert "'convert'" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["convert"], "model"),
        (["convert", "efficientnet-lite0"], "out"),
        (["convert", "--nope"], "--nope"),
        (
            ["convert", "x:y", "--out", "x.edge", "--size", "big"],
            "--size must be a number or WIDTHxHEIGHT, such as 320",
        ),
        (["run", "nope.edge"], "give one source"),
        (["run", "nope.edge", "x.jpg", "--camera", "0"], "give one source"),
        (["run", "nope.edge", "x.jpg"], "nope.edge does not exist"),
        (["run", "nope.edge", "x.jpg", "--threads", "many"], "--threads"),
        (["bench", "nope.edge"], "nope.edge does not exist"),
        (["bench", "nope.edge", "--threads", "1,two"], "1,two"),
        (["inspect", "nope.edge"], "nope.edge does not exist"),
        (["eval", "nope.edge", "--data", "nowhere"], "nope.edge"),
        (["eval", "nope.edge"], "data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "says",
)
def test_wrong_words_end_with_code_2_and_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--debug", "inspect", "nope.edge"], ["inspect", "nope.edge", "--debug"]])
def test_debug_anywhere_prints_the_traceback(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_internal_failure_is_code_3_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @functools.wraps(edgecnn.inspect)  # whose signature is what the command line is made of
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken inside")

    monkeypatch.setattr("edgecnn._verbs.inspect.inspect", fail)
    assert main(["inspect", "any.edge"]) == 3
    said = capsys.readouterr().err
    assert "internal failure: RuntimeError: broken inside" in said
    assert len(said.strip().splitlines()) == 1


def test_control_c_is_128_plus_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.wraps(edgecnn.inspect)
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgecnn._verbs.inspect.inspect", interrupted)
    assert main(["inspect", "any.edge"]) == 128 + signal.SIGINT


@pytest.mark.parametrize("library", ["libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"])
@pytest.mark.parametrize(
    "words", [["demo"], ["run", "x.edge", "x.jpg"], ["bench", "x.edge"], ["inspect", "x.edge"]], ids=" ".join
)
def test_a_system_without_libgl_hears_which_debian_packages_to_install(
    words: list[str], library: str, tmp_path: Path
) -> None:
    (tmp_path / "cv2.py").write_text(
        f"raise ImportError('{library}: cannot open shared object file: No such file or directory')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from edgecnn.cli._main import main; raise SystemExit(main())", *words],
        cwd=tmp_path,  # where the broken cv2 is found first
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "apt-get install libgl1 libglib2.0-0" in done.stderr
    assert library in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_python_m_edgecnn_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"edgecnn {__version__}\n"
