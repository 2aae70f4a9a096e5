"""A camera and a sink that another package adds: the page's own example, installed, from the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.builders.repository import REPOSITORY

HOME = REPOSITORY
PROGRAM = """
import sys
from tests.runners.live.conftest import OpenRunner, SquareRunner
from edgecnn._verbs import run as verb
from edgecnn.cli import _main
class Runner(OpenRunner):
    def __call__(self, frame):
        frame.image[8:32, 8:32] = 255
        return super().__call__(frame)
verb.open_runner = lambda *_, **__: Runner()
sys.argv = ["edgecnn", *sys.argv[1:]]
_main.entry_point()
"""


def edgecnn(site: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(HOME)])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_camera_and_a_sink_of_another_package_run(toys: Path, tmp_path: Path) -> None:
    words = ("run", "no.edge", "--camera", "drawn:5", "--camera", "drawn:3", "--sink", "tally=counts.txt", "--json")
    done = edgecnn(toys, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 8
    assert sorted((tmp_path / "counts.txt").read_text().splitlines()) == ["drawn 3: 3", "drawn 5: 5"]


def test_the_help_names_them(toys: Path, tmp_path: Path) -> None:
    done = edgecnn(toys, "run", "--help", cwd=tmp_path)
    assert done.returncode == 0
    printed = " ".join(done.stdout.split())
    assert "drawn:COUNT" in printed and "web or tally" in printed


def test_an_unknown_sink_or_one_without_its_argument_is_refused(toys: Path, tmp_path: Path) -> None:
    for sink, message in (("tali", "did you mean tally"), ("tally", "--sink tally=FILE")):
        done = edgecnn(toys, "run", "no.edge", "--camera", "drawn:5", "--sink", sink, cwd=tmp_path)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split())


def test_a_broken_package_is_left_out_with_its_name(toys: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(toys, tmp_path / "site"))
    (broken / "edgecnn_drawn.py").write_text("import nothing_of_that_name\n")
    done = edgecnn(broken, "run", "no.edge", "--camera", "drawn:5", cwd=tmp_path)
    assert done.returncode == 2
    assert "edgecnn-toys" in done.stderr and "Traceback" not in done.stderr


def test_the_forms_in_the_help_are_those_of_the_table() -> None:
    from edgecnn.runners.live.cameras.table import CAMERAS, LIVE_FORMS, SHORT_FORMS

    for name, short in SHORT_FORMS.items():
        assert all(form.strip("'").partition("…")[0] in CAMERAS.get(name).form for form in short)
    assert {kind.form for kind in CAMERAS.others(SHORT_FORMS)} <= set(LIVE_FORMS.names())


def test_a_kind_that_is_added_to_the_table_is_named_in_the_help() -> None:
    from edgecnn.registry import Table
    from edgecnn.runners.live.cameras.kind import CameraKind
    from edgecnn.runners.live.cameras.table import SHORT_FORMS, LiveForms

    table = Table("camera", {"file": "not.imported:KIND"}, record=CameraKind, group="no.such.group")
    table.add(CameraKind(name="drawn", form="drawn:COUNT", about="drawn pictures", recognise=lambda words: None))
    assert LiveForms(table, SHORT_FORMS).names() == ["drawn:COUNT"]


def test_what_devices_says_of_cameras() -> None:
    from edgecnn.runners.live.cameras.table import found_cameras

    kinds = {camera.kind for camera in found_cameras()}
    assert {"device", "csi", "gstreamer"} <= kinds
