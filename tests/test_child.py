"""The launcher of child processes, with real ones that print, die, hang and leave others behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from edgecnn.child import Child, ask_once
from edgecnn.errors import DeviceError, EdgeCnnError, InternalError, SpecError
from tests.builders.processes import start_python

PROGRAM = r"""
import ctypes, os, signal, subprocess, sys, time
print("a print while it is imported")
sys.stdout.flush()
os.write(1, b"\x00\xffedgeCNN half of a mark, and \x00")
from edgecnn.child import serve
from edgecnn.errors import SpecError

def echo(**words):
    print("between the answers", flush=True)
    os.write(1, b"\x00\xffedgeCNN\x00\x00\x00\x04evil")
    ctypes.CDLL(None).puts(b"from a library")
    return {"words": words, "argv": sys.argv[1:]}

def refuse(): raise SpecError("that cannot be")
def stumble(): return {}["missing"]
def die(number):
    print("my last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), number)
    time.sleep(5)
def leave(code): os._exit(code)
def hang(): time.sleep(600)
def spawn(): return {"pid": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid}
def large(count): return {"text": "x" * count}

serve({f.__name__: f for f in (echo, refuse, stumble, die, leave, hang, spawn, large)})
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tried_child.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_prints_do_not_come_between_the_answers() -> None:
    with Child("tried_child", "a", "b", timeout_s=30) as child:
        for number in range(3):
            assert child.ask("echo", number=number) == {"words": {"number": number}, "argv": ["a", "b"]}
        assert len(child.ask("large", count=3_000_000)["text"]) == 3_000_000
        assert "from a library" in child.output or "between the answers" in child.output


def test_errors_come_back_in_their_class_and_it_lives_on() -> None:
    with Child("tried_child", timeout_s=30) as child:
        with pytest.raises(SpecError, match=r"^that cannot be$"):
            child.ask("refuse")
        with pytest.raises(InternalError, match="KeyError: 'missing'"):
            child.ask("stumble")
        with pytest.raises(InternalError, match="KeyError"):
            child.ask("unknown")
        assert child.ask("echo")["words"] == {}


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE", "SIGKILL"])
def test_a_crash_is_reported_with_its_signal_and_its_last_output(name: str) -> None:
    with pytest.raises(DeviceError, match=f"killed by {name}.* in 'die'; it said: .*my last words") as failed:
        ask_once("tried_child", "die", timeout_s=30, number=int(signal.Signals[name]))
    assert failed.value.fault is not None
    assert failed.value.fault.crash == name


def test_an_end_without_output_is_reported_with_its_code() -> None:
    with pytest.raises(DeviceError, match="ended with exit code 7 in 'leave'"):
        ask_once("tried_child", "leave", timeout_s=30, code=7)


def test_a_module_that_is_not_there_is_reported() -> None:
    with pytest.raises(DeviceError, match=r"(?s)exit code 1 in 'echo'.*No module named"):
        ask_once("no_such_child", "echo", timeout_s=30)


def test_silence_is_ended_after_its_time() -> None:
    begun = time.monotonic()
    with Child("tried_child", timeout_s=30) as child:
        child.ask("echo")
        child.timeout_s = 0.5
        with pytest.raises(DeviceError, match="no answer to 'hang' within 0 s") as failed:
            child.ask("hang")
        assert ended(child.pid)
    assert failed.value.fault is not None
    assert failed.value.fault.crash == "timeout"
    assert time.monotonic() - begun < 25


def test_what_it_started_ends_with_it() -> None:
    child = Child("tried_child", timeout_s=30)
    grandchild = child.ask("spawn")["pid"]
    child.release()
    assert ended(child.pid)
    assert ended(grandchild)


def test_what_it_started_ends_with_it_when_it_crashes() -> None:
    child = Child("tried_child", timeout_s=30)
    grandchild = child.ask("spawn")["pid"]
    with pytest.raises(EdgeCnnError):
        child.ask("die", number=int(signal.SIGSEGV))
    child.release()
    assert ended(grandchild)


def test_it_ends_when_its_program_is_killed_however_busy_it_is(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from edgecnn.child import Child\n"
        "child = Child('tried_child', timeout_s=30)\n"
        "child.send('hang')\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "time.sleep(30)\n"
    )
    with start_python(program, str(tmp_path / "pid")) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(2)  # the child has begun
        process.kill()
    assert ended(int((tmp_path / "pid").read_text()))
