"""Shell completion: answers a shell's request on <Tab>, and installs its script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from edgecnn.errors import SpecError, StorageError

_VARIABLE: Final = "_EDGECNN_COMPLETE"
_SHELLS: Final = ("bash", "zsh", "fish")


def asked() -> bool:
    """Whether a shell asks for completion."""
    return bool(os.environ.get(_VARIABLE))


def complete(app: click.Command) -> int:
    """Answer the shell."""
    from click.shell_completion import shell_complete

    return shell_complete(app, {}, "edgecnn", _VARIABLE, os.environ[_VARIABLE])


def options() -> list[click.Option]:
    """The program's options for completion."""
    shown = {"metavar": "[SHELL]", "is_flag": False, "flag_value": "", "is_eager": True, "expose_value": False}
    return [
        click.Option(
            ["--install-completion"],
            callback=_install,
            help=f"Complete words on <Tab> in {', '.join(_SHELLS)}; default: the current shell.",
            **shown,  # type: ignore[arg-type]
        ),
        click.Option(
            ["--show-completion"],
            callback=_show,
            help="Print the shell's completion script.",
            **shown,  # type: ignore[arg-type]
        ),
    ]


def _show(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        click.echo(script(ctx.command, shell_of(value)))
        ctx.exit()


def _install(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    shell = shell_of(value)
    try:
        path = install(script(ctx.command, shell), shell, Path.home())
    except OSError as failed:
        raise StorageError(f"{failed.filename} cannot be written: {failed.strerror}") from failed
    click.echo(f"{shell} completion is written to {path}: start a new shell to use it")
    ctx.exit()


def shell_of(word: str) -> str:
    """The named shell, otherwise the current one.

    Raises:
        SpecError: completion does not support it.
    """
    shell = word or Path(os.environ.get("SHELL", "")).name
    if shell not in _SHELLS:
        what = f"{shell!r} is not" if shell else "$SHELL is empty, and not"
        raise SpecError(f"{what} one of {', '.join(_SHELLS)}: name one, such as --install-completion bash")
    return shell


def script(app: click.Command, shell: str) -> str:
    """The script that the shell reads at its start."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # `shell_of` returns only shells that Click knows
    complete_class = kind(app, {}, "edgecnn", _VARIABLE)
    return complete_class.source_template % complete_class.source_vars()


def install(text: str, shell: str, home: Path) -> Path:
    """Write the script to where the shell looks for it; if needed, make the shell's start-up file read it.

    A second installation adds nothing.
    """
    place, rc, lines = {
        "bash": (".bash_completions/edgecnn.sh", ".bashrc", 'source "{path}"'),
        "zsh": (".zfunc/_edgecnn", ".zshrc", "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
        "fish": (".config/fish/completions/edgecnn.fish", "", ""),
    }[shell]
    path = home / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    if rc:
        line = lines.format(path=path)
        start = home / rc
        before = start.read_text() if start.exists() else ""
        if line not in before.splitlines():
            with start.open("a") as file:
                file.write(("" if not before or before.endswith("\n") else "\n") + line + "\n")
    return path
