"""What is packed: source archive → wheel → imported far from the repository."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import edgecnn
from tests.builders.repository import REPOSITORY


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    # Without isolation nothing is fetched: hatchling is part of the dev extra.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(packed: Path) -> Path:
    (found,) = packed.glob("*.whl")
    return found


def _python_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


def test_the_wheel_holds_every_module_and_what_they_read(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"edgecnn/{name}" for name in _python_files(REPOSITORY / "edgecnn")}
    for linked in ("converters", "runners"):
        expected |= {f"edgecnn/{linked}/{name}" for name in _python_files(REPOSITORY / linked)}
    assets = (REPOSITORY / "edgecnn" / "assets").rglob("*")
    expected |= {path.relative_to(REPOSITORY).as_posix() for path in assets if path.is_file()}
    page = REPOSITORY / "runners" / "live" / "sinks" / "web" / "page"
    expected |= {f"edgecnn/{path.relative_to(REPOSITORY).as_posix()}" for path in page.iterdir()}
    expected.add("edgecnn/py.typed")
    assert {"edgecnn/runners/live/loop/newest.py", "edgecnn/runners/live/sinks/web/page/page.html"} <= expected
    assert "edgecnn/converters/deployable/decoders/yolox.py" in expected
    assert {"edgecnn/assets/cat.jpg", "edgecnn/assets/MODEL_CARD.md"} <= expected
    for network in ("detector", "segmenter"):
        assert {
            f"edgecnn/assets/{network}.edge/manifest.json",
            f"edgecnn/assets/{network}.model/model.json",
        } <= expected
    assert expected - names == set()


def test_the_wheel_is_small_enough_for_a_device_to_fetch(wheel: Path) -> None:
    assert wheel.stat().st_size <= 12e6


def test_the_wheel_contains_only_edgecnn_and_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"edgecnn-{edgecnn.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"edgecnn", info}
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(names)
    assert [name for name in names if "__pycache__" in name or "/cpp/" in name] == []


def test_the_source_archive_holds_tests_and_documents(packed: Path) -> None:
    (archive,) = packed.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    expected = {"README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "constraints.txt", "Makefile", "pyproject.toml"}
    expected |= {
        "tests/test_packaging.py",
        "docs/decisions/0001-layout.md",
        "benchmarks/import_time.py",
        "examples/robot_loop.py",
        "edgecnn/runners/cpp/CMakeLists.txt",
    }
    assert expected - names == set()


def test_the_wheel_is_imported_far_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            str(wheel),
        ],
        check=True,
    )
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    # What edgecnn needs comes from this environment, after the new one's own: an editable edgecnn there isn't seen,
    # because .pth files count in a site folder only.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = "import edgecnn, edgecnn.converters, edgecnn.runners.runner, edgecnn.runners.live.loop.newest\n"
    program += "from edgecnn.photographs import photographs\nassert len(photographs()) == 4\n"
    program += "for word in ('default-detector', 'default-segmenter'):\n"
    program += "    bundle = edgecnn.Bundle.open(word)\n"
    program += "    for artifact in bundle.manifest.artifacts: bundle.checked_path(artifact)\n"
    program += "for m in (edgecnn, edgecnn.converters, edgecnn.runners): print(m.__file__)"
    done = subprocess.run([python, "-c", program], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    places = [Path(line) for line in done.stdout.split()]
    assert places == [packages / "edgecnn" / part / "__init__.py" for part in (".", "converters", "runners")]
    command = tmp_path / "env" / "bin" / "edgecnn"
    said = subprocess.run([command, "--version"], cwd="/", capture_output=True, text=True, check=True)
    assert said.stdout == f"edgecnn {edgecnn.__version__}\n"
