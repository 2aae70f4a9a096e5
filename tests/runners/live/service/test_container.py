"""The container image and its compose file: no engine is needed to see that they keep what they promise."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.builders.repository import REPOSITORY

FOLDER = REPOSITORY / "containers"
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction with its arguments; continued lines are one."""
    kept = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


STEPS = instructions(FOLDER / "Containerfile")


def of(word: str) -> list[str]:
    return [rest for each, rest in STEPS if each == word]


def test_every_instruction_is_one() -> None:
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {word for word, _ in STEPS} <= known | {"ENTRYPOINT", "CMD"}


def test_it_runs_as_nobody_s_user_and_tells_its_health() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of("USER")[-1])
    words = [word for word, _ in STEPS]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "RUN" not in words[words.index("USER") :]
    assert "/healthz" in of("HEALTHCHECK")[0]
    assert not any("sudo" in rest or "chmod 777" in rest for rest in of("RUN"))


def test_one_runtime_is_chosen_and_packages_are_pinned() -> None:
    (default,) = [rest.partition("=")[2] for rest in of("ARG") if rest.startswith("RUNTIME")]
    assert default in EXTRAS
    (install,) = [rest for rest in of("RUN") if "pip install" in rest]
    wanted = re.search(r"\.\[(.*?)\]", install)
    assert wanted
    assert set(wanted[1].split(",")) - {"${RUNTIME}"} <= set(EXTRAS)
    assert "-c constraints.txt" in install
    (system,) = [rest for rest in of("RUN") if "apt-get install" in rest]
    assert "--no-install-recommends" in system
    assert "rm -rf /var/lib/apt/lists" in system
    assert all(":" in rest for rest in of("FROM"))  # a version of each base


def test_only_what_is_installed_reaches_the_build() -> None:
    lines = (REPOSITORY / ".containerignore").read_text().split()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert lines[0] == "*"
    assert all((REPOSITORY / name).exists() for name in allowed)
    assert {"pyproject.toml", "constraints.txt", "edgecnn", "runners", "converters"} <= set(allowed)
    assert not any(fnmatch("tests", pattern) for pattern in allowed)


def test_compose_gives_no_privileges_and_names_files_that_are_there() -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    document: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    for name, container in document["services"].items():
        assert container["read_only"] is True, name
        assert container["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in container["security_opt"], name
        assert "privileged" not in container, name
    built = document["services"]["edgecnn"]["build"]
    assert (FOLDER / built["context"] / built["dockerfile"]).is_file()
    assert built["args"]["RUNTIME"] in EXTRAS
    assert (FOLDER / "mosquitto.conf").is_file()
