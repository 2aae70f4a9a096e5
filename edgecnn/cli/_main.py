"""The `edgecnn` command: its verbs, and how errors become one line and an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from importlib import import_module
from types import FrameType
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from edgecnn.cli._output import people
from edgecnn.cli._web_options import with_address
from edgecnn.errors import EdgeCnnError

# The order is that of the help text. Verbs are imported when the command line is built; what they need (torch,
# a runtime) is imported by the function behind them.
VERBS = ("train", "prune", "compress", "convert", "quantize", "eval", "bench", "run", "devices", "inspect", "demo")

# What OpenCV's wheel wants of the system; the loader's message names one of them.
_SYSTEM_LIBRARIES = ("libGL", "libgthread-2.0", "libglib-2.0")

app = typer.Typer(
    name="edgecnn",
    help="From a trained PyTorch CNN to a real-time program on an edge device, proved on the way.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        from edgecnn import __version__

        typer.echo(f"edgecnn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del debug, version  # --debug is read in `main`, where errors end


for _verb in VERBS:
    app.command(_verb)(import_module(f"edgecnn.cli.{_verb}").command)


class _Terminated(BaseException):
    """SIGTERM arrived; unwinds the stack so that files are closed and nothing half-written stays."""


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
    words = [word for word in words if word != "--debug"]  # so that it may stand anywhere
    words = with_address(words)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code: Any = app(words, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, typer.Abort):
        people.print("stopped")
        return 128 + signal.SIGINT
    except _Terminated:
        return 128 + signal.SIGTERM
    except TyperException as wrong:
        if message := wrong.format_message().strip():  # empty where the help was printed instead
            _report(f"{message} (see `edgecnn --help`)", debug)
        return 2
    except EdgeCnnError as error:
        _report(f"{type(error).__name__}: {error}", debug)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except ImportError as error:
        return _missing_library(error, debug)
    except Exception as error:
        return _internal(error, debug)
    finally:
        signal.signal(signal.SIGTERM, before)


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
    _report(f"internal failure: {type(error).__name__}: {error} (--debug prints where)", debug)
    return 3


def _report(line: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    people.print(line, style="red", markup=False, soft_wrap=True)


def entry_point() -> None:
    """What the installed `edgecnn` script calls."""
    sys.exit(main())


if __name__ == "__main__":
    entry_point()
