"""The `edgecnn` command: its verbs; errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any

import click

from edgecnn.cli import _completion, _output, _watched
from edgecnn.cli._command import Verbs
from edgecnn.cli._data_lines import data_lines
from edgecnn.cli._verb import VERBS
from edgecnn.cli._web_options import with_address
from edgecnn.errors import EdgeCnnError

__all__ = ["VERBS", "app", "entry_point", "main"]

_HELP = "From a trained PyTorch CNN to a real-time program on an edge device, verified at each step."
# System libraries that OpenCV's wheel needs; the loader's message names one of them.
_SYSTEM_LIBRARIES = ("libGL", "libgthread-2.0", "libglib-2.0")


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from edgecnn import __version__

        _output.print_line(f"edgecnn {__version__}")
        ctx.exit()


app = Verbs(
    "edgecnn",
    help=_HELP,
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
            help="Print the version.",
        ),
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Print the traceback of an error."),
        *_completion.options(),
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


class _Terminated(BaseException):
    """SIGTERM arrived; unwinds the stack so that files are closed and no half-written file stays."""


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    raise _Terminated


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done; 1 a gate or a comparison failed; 2 wrong use or bad input; 3 device, disk or
        internal failure; 128 + n for signal n.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # so that it may be anywhere
    words = with_address(words)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with data_lines():
            return _run(words)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort):
        _output.print_remark("stopped")
        return 128 + signal.SIGINT
    except _Terminated:
        return 128 + signal.SIGTERM
    except click.ClickException as wrong:
        path = wrong.ctx.command_path if isinstance(wrong, click.UsageError) and wrong.ctx else "edgecnn"
        _report(f"{' '.join(wrong.format_message().split())} (see `{path} --help`)", debug)
        return 2
    except EdgeCnnError as error:
        _report(f"{type(error).__name__}: {error}", debug)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output ended
        _close_stdout()
        return 128 + signal.SIGPIPE
    except ImportError as error:
        return _missing_library(error, debug)
    except Exception as error:
        return _internal(error, debug)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(words: list[str]) -> int:
    if not words:
        with app.make_context("edgecnn", ["--help"], resilient_parsing=True) as ctx:
            sys.stdout.write(app.get_help(ctx) + "\n")
        return 2
    with app.make_context("edgecnn", list(words)) as ctx:
        code: Any = app.invoke(ctx)
    return code if isinstance(code, int) else 0


def _close_stdout() -> None:
    """So that the interpreter's last flush does not fail as well."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # it is not a file of the system
        sys.stderr.close()


def _missing_library(error: ImportError, debug: bool) -> int:
    if not any(library in str(error) for library in _SYSTEM_LIBRARIES):
        return _internal(error, debug)
    _report(
        f"OpenCV needs a system library that is not installed ({error}): on Debian and Ubuntu, "
        "apt-get install libgl1 libglib2.0-0",
        debug,
    )
    return 2


def _internal(error: Exception, debug: bool) -> int:
    _report(f"internal failure: {type(error).__name__}: {error} (--debug prints the traceback)", debug)
    return 3


def _report(line: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    _output.print_error(line)


def entry_point() -> None:
    """Entry point of the installed `edgecnn` script."""
    if _completion.asked():
        sys.exit(_completion.complete(app))
    with contextlib.suppress(AttributeError, RuntimeError, ValueError, OSError):  # there is no stderr
        # An exporter or a driver that crashes says at least where, also while its other output is thrown away.
        faulthandler.enable(os.dup(sys.stderr.fileno()))
    is_worker = _watched.begin()
    code = _watched.run(sys.argv[1:]) if not is_worker and _watched.is_wanted(sys.argv[1:]) else main()
    if signals := sys.modules.get("edgecnn.runners.live.signals"):
        signals.leave(code)  # a camera's driver may still be running
    sys.exit(code)


if __name__ == "__main__":
    entry_point()
