"""Starts child processes, for work that may crash its process, or must not be disturbed.

A child is a module of edgecnn that calls `serve`. It gets requests on its standard input and answers on its standard
output, in frames (a mark, a length, JSON), so that output of other libraries does no harm. It ends with its
standard input, and everything that it started ends with it: nothing outlives the program that started it.

This module is below the runners, which open files in children, and uses only the errors.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgecnn.errors import Fault

_MARK = b"\x00\xffedgeCNN"
_HEADER = struct.Struct(f">{len(_MARK)}sI")
_LARGEST_BYTES = 1 << 28
_CLOSE_S = 5.0
_LAST_WORDS = 400
_MOST_WORDS = 1 << 16
_HOME = str(Path(__file__).resolve().parents[1])
# `-P` of Python 3.11, for 3.10 too: a numpy.py in the working folder must not be imported.
_START = """import runpy, sys
sys.path[:] = filter(None, sys.path)
runpy.run_module(sys.argv.pop(1), None, "__main__", True)"""
IN_CHILD = "EDGECNN_CHILD"  # set in every child's environment: it does not need children of its own for safety


class Child:
    """A process that runs one module and answers requests.

    Args:
        module: its full name; it must call `serve`.
        words: its arguments.
        timeout_s: how long it may be silent beyond the time that its work takes.
    """

    def __init__(self, module: str, *words: str, timeout_s: float) -> None:
        self.timeout_s, self._asked = timeout_s, "start"
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `release`
        paths = [_HOME, *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, module, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._output,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), IN_CHILD: "1"},
                start_new_session=True,  # Ctrl-C goes to us; the child ends with us (see `release`)
            )
        except OSError as failed:
            self._output.close()
            raise Fault.crashed("start", f"{sys.executable} cannot be started: {failed}").as_error() from failed
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Id of the process, and of its group."""
        return self._process.pid

    @property
    def output(self) -> str:
        """The last 64 KB that it and its libraries printed."""
        self._output.seek(max(self._output.seek(0, os.SEEK_END) - _MOST_WORDS, 0))
        return self._output.read().decode(errors="replace").strip()

    def ask(self, do: str, *, expected_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Args:
            do: the request's name, one of the module's handlers.
            arguments: its arguments, as JSON values.
            expected_s: how long the work itself takes; added to the timeout.

        Raises:
            EdgeCnnError: the child's error, of its own class; a DeviceError with `fault.crash` if the child crashed
                or did not answer in time.
        """
        self.send(do, **arguments)
        return self.receive(expected_s=expected_s)

    def send(self, do: str, **arguments: Any) -> None:
        """Send a request without waiting; `receive` returns the answer."""
        assert self._process.stdin is not None
        self._asked = do
        with contextlib.suppress(BrokenPipeError):  # it has ended: the missing answer will show it
            _write(self._process.stdin, {"do": do, "arguments": arguments})

    def receive(self, *, expected_s: float = 0.0) -> dict[str, Any]:
        """The answer to the last request; raises as `ask`."""
        allowed_s = expected_s + self.timeout_s
        try:
            answer = self._answers.get(timeout=allowed_s)
        except queue.Empty:
            self.kill()
            words = f"no answer to {self._asked!r} within {allowed_s:.0f} s: its process was ended{self._last_output()}"
            raise Fault.crashed("timeout", words).as_error() from None
        if not answer:
            raise self._how_it_ended().as_error()
        try:
            message = json.loads(answer)
        except (ValueError, RecursionError) as wrong:
            reason = f"its process answered {self._asked!r} with no JSON: {wrong}"
            raise Fault.crashed("answer", reason).as_error() from None
        if isinstance(message, dict) and "fault" in message:
            raise Fault.from_document(message["fault"]).as_error()
        found = message.get("answer") if isinstance(message, dict) else None
        if not isinstance(found, dict):
            reason = f"its process answered {self._asked!r} with neither an answer nor a fault"
            raise Fault.crashed("answer", reason).as_error()
        return found

    def close(self) -> None:
        """Let it end normally."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may have ended already
            self._process.stdin.close()
        self._wait_for_end(_CLOSE_S)

    def release(self) -> None:
        """End it if it still runs, with everything that it started, and close the pipes to it."""
        self.kill()
        self._reader.join(_CLOSE_S)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._output.close()

    def kill(self) -> None:
        """End it and its group at once; a second call does nothing."""
        if self._process.returncode is not None:
            return
        # It is not waited for before this: until then no other process gets its number, nor its group's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        self.release()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for message in _messages(pipe):
                self._answers.put(message)
        self._answers.put(b"")  # it has ended

    def _wait_for_end(self, seconds: float) -> bool:
        """Wait until it has ended, without releasing its process id."""
        deadline = time.monotonic() + seconds
        while not self._has_ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def _has_ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _how_it_ended(self) -> Fault:
        self._wait_for_end(_CLOSE_S)
        self.kill()
        code = self._process.returncode
        if code < 0:
            crash = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how = f"was killed by {crash}"
            if -code == signal.SIGKILL:
                how += " (the system does that when memory runs out)"
        else:
            crash = how = f"exit code {code}"
            how = f"ended with {how}"
        return Fault.crashed(crash, f"its process {how} in {self._asked!r}{self._last_output()}")

    def _last_output(self) -> str:
        output = self.output
        return f"; it said: …{output[-_LAST_WORDS:]}" if output else ""


def ask_once(module: str, do: str, *, timeout_s: float, **arguments: Any) -> dict[str, Any]:
    """Start a child, send it one request, and end it; raises as `Child.ask`."""
    with Child(module, timeout_s=timeout_s) as child:
        return child.ask(do, **arguments)


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests until standard input ends; in a child's `main`.

    Args:
        handlers: request → function that returns plain values; its exception is answered as a `Fault`.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # from here on, output of a runtime goes to stderr
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    working = threading.Event()

    def read() -> None:
        for message in _messages(sys.stdin.buffer):
            working.set()
            requests.put(message)
        if working.is_set():  # nobody waits for the answer, and a library may never return
            os._exit(1)
        requests.put(b"")

    threading.Thread(target=read, daemon=True).start()
    while message := requests.get():
        request = json.loads(message)
        try:
            reply = {"answer": handlers[request["do"]](**request["arguments"])}
        except Exception as error:
            reply = {"fault": Fault.of(error).document()}
        working.clear()
        _write(answers, reply)


def _write(pipe: IO[bytes], message: dict[str, Any]) -> None:
    content = json.dumps(message).encode()
    pipe.write(_HEADER.pack(_MARK, len(content)) + content)
    pipe.flush()


def _messages(pipe: Any) -> Iterator[bytes]:
    """The messages in a pipe; data between them is skipped."""
    waiting = bytearray()
    while chunk := pipe.read1(1 << 16):
        waiting += chunk
        while True:
            start = waiting.find(_MARK)
            if start < 0:
                del waiting[: max(len(waiting) - len(_MARK) + 1, 0)]
                break
            del waiting[:start]
            if len(waiting) < _HEADER.size:
                break
            _, size = _HEADER.unpack_from(waiting)
            if size > _LARGEST_BYTES:  # other output that looks like a mark
                del waiting[:1]
                continue
            if len(waiting) < _HEADER.size + size:
                break
            yield bytes(waiting[_HEADER.size : _HEADER.size + size])
            del waiting[: _HEADER.size + size]
