"""Tables of records, rows that other packages add, and parts that are imported on first use."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgecnn.errors import DeviceError, EdgeCnnError, MissingDependencyError, PluginError, UnknownNameError
from edgecnn.registry import Part, Table

GROUP = "edgecnn.shapes"


@dataclass(frozen=True)
class Shape:
    """A record."""

    name: str
    sides: int = 0


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def package(modules: Path) -> Callable[..., None]:
    """Installs a package of one module, with entry points: `package("shapes-1", "NAME = …", hexagon="six:SHAPE")`."""

    def install(name: str, source: str, **points: str) -> None:
        (modules / f"{name.replace('-', '_')}.py").write_text(f"from {__name__} import Shape\n{source}\n")
        info = modules / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{point} = {value}\n" for point, value in points.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")

    return install


@pytest.fixture
def table(modules: Path) -> Table[Shape]:
    """Two rows of edgecnn's own."""
    (modules / "own_shapes.py").write_text(
        f"from {__name__} import Shape\nSQUARE = Shape('square', 4)\nTRIANGLE = Shape('triangle', 3)\n"
    )
    return Table(
        "shape",
        {"square": "own_shapes:SQUARE", "triangle": "own_shapes:TRIANGLE"},
        record=Shape,
        group=GROUP,
    )


def test_rows_come_in_order_of_preference_and_are_imported_when_asked_for(table: Table[Shape]) -> None:
    assert table.names() == table.built_in() == ["square", "triangle"]
    assert "own_shapes" not in sys.modules
    assert table.get("triangle").sides == 3
    assert [row.name for row in table] == ["square", "triangle"]


def test_an_unknown_name_is_refused_with_what_is_near(table: Table[Shape]) -> None:
    with pytest.raises(UnknownNameError, match="no shape is called 'sqare'; did you mean square") as refused:
        table.get("sqare")
    assert refused.value.exit_code == 2
    assert not table.has("sqare")


def test_a_name_that_is_taken_is_a_mistake(table: Table[Shape]) -> None:
    table.add(Shape("circle"))
    assert table.names() == ["square", "triangle", "circle"]
    for taken in ("circle", "square"):
        with pytest.raises(ValueError, match=f"there is a shape {taken!r} already"):
            table.add(Shape(taken))


def test_another_package_adds_a_row_that_comes_last(table: Table[Shape], package: Callable[..., None]) -> None:
    package("six-sides", "SHAPE = Shape('hexagon', 6)", hexagon="six_sides:SHAPE")
    assert table.names() == ["square", "triangle", "hexagon"]
    assert "six_sides" not in sys.modules
    assert table.get("hexagon").sides == 6
    assert [row.sides for row in table] == [4, 3, 6]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('out of order')", "it cannot be loaded: RuntimeError: out of order"),
        ("import a_package_that_is_not_there", "it cannot be loaded: ModuleNotFoundError"),
        ("", "it cannot be loaded: AttributeError"),
        ("SHAPE = 6", "expected a Shape, got a int"),
        ("SHAPE = Shape('heptagon')", "its record has the name 'heptagon'"),
        ("import sys; sys.exit(5)", "it cannot be loaded: SystemExit"),
    ],
)
def test_a_broken_plug_in_is_reported_once_and_the_others_work(
    source: str, said: str, table: Table[Shape], package: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    package("six-sides", source, hexagon="six_sides:SHAPE")
    package("five-sides", "SHAPE = Shape('pentagon', 5)", pentagon="five_sides:SHAPE")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [row.name for row in table] == ["square", "triangle", "pentagon"]
    (record,) = caplog.records
    assert "shape 'hexagon' of the package six-sides 1.0 is skipped" in record.message
    assert said in record.message
    with pytest.raises(PluginError, match="fix, update or uninstall that package") as refused:
        table.get("hexagon")
    assert refused.value.exit_code == 2
    assert table.names() == ["square", "triangle", "pentagon"]


def test_a_name_of_edgecnns_own_stays_its_own(
    table: Table[Shape], package: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    package("other-square", "SHAPE = Shape('square', 40)", square="other_square:SHAPE")
    with caplog.at_level(logging.WARNING):
        assert [row.sides for row in table] == [4, 3]
    assert "of the package other-square 1.0 is skipped: edgecnn already has a shape of that name" in caplog.text


def test_of_two_packages_with_one_name_the_first_is_used_and_the_other_reported(
    table: Table[Shape], package: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    package("b-six", "SHAPE = Shape('hexagon', 60)", hexagon="b_six:SHAPE")
    package("a-six", "SHAPE = Shape('hexagon', 6)", hexagon="a_six:SHAPE")
    with caplog.at_level(logging.WARNING):
        assert table.get("hexagon").sides == 6
    assert "of the package b-six 1.0 is skipped: a-six 1.0 already has a shape of that name" in caplog.text


def test_a_part_is_imported_when_it_is_asked_for_and_not_before(modules: Path) -> None:
    (modules / "part_that_is_there.py").write_text("class Something: pass\n")
    part: Part[type] = Part("part_that_is_there:Something", extra="mine")
    assert part.is_installed
    assert "part_that_is_there" not in sys.modules
    assert part.load("shape 'mine'").__name__ == "Something"


def test_a_missing_package_is_named_with_the_extra_that_brings_it(modules: Path) -> None:
    (modules / "part_that_needs.py").write_text("import a_package_that_is_not_there\n")
    for needs in ((), ("a_package_that_is_not_there",)):
        part: Part[type] = Part("part_that_needs:Something", needs=needs, extra="mine")
        assert part.is_installed is not bool(needs)
        with pytest.raises(MissingDependencyError) as missing:
            part.load("shape 'mine'")
        assert str(missing.value) == (
            "shape 'mine' needs the package 'a_package_that_is_not_there', which is not installed: "
            "pip install 'edgecnn[mine]'"
        )
        assert missing.value.extra == "mine"
        assert missing.value.exit_code == 2


def test_a_part_of_another_package_says_what_brings_it() -> None:
    part: Part[type] = Part("x:Y", needs=("a_package_that_is_not_there",), install="pip install shapes")
    with pytest.raises(MissingDependencyError, match=r"which is not installed: pip install shapes$"):
        part.load("shape 'mine'")


def test_a_package_that_is_there_and_cannot_be_imported_is_not_called_missing(modules: Path) -> None:
    (modules / "broken_runtime.py").write_text("raise ImportError('libthing.so: cannot open', name='broken_runtime')\n")
    (modules / "part_of_broken.py").write_text("import broken_runtime\n")
    part: Part[type] = Part("part_of_broken:Something", needs=("broken_runtime",), extra="mine")
    with pytest.raises(
        DeviceError, match=r"broken_runtime is installed and cannot be imported \(libthing.so.*reinstall"
    ):
        part.load("shape 'mine'")


def test_a_missing_module_of_edgecnn_is_not_reported_as_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError):
        Part("edgecnn.no_such_module:Something", extra="mine").load("shape 'mine'")


def test_one_of_several_packages_is_enough() -> None:
    assert Part("x:Y", needs=("a_package_that_is_not_there", "json")).is_installed
    assert not Part("x:Y", needs=("a_package_that_is_not_there", "absent.part")).is_installed


def test_every_error_has_an_exit_code_of_the_design() -> None:
    found = [EdgeCnnError]
    for error in found:
        found += error.__subclasses__()
    assert {error.exit_code for error in found} == {1, 2, 3}
    assert {e.__name__ for e in found if e.exit_code == 1} == {
        "GateError",
        "ConversionError",
        "ParityError",
        "BlindError",
        "AccuracyError",
        "SignatureError",
        "SpeedError",
        "TrainingError",
    }
    assert {e.__name__ for e in found if e.exit_code == 3} == {
        "DeviceError",
        "BoardError",
        "LoginError",
        "StorageError",
        "InternalError",
    }


def test_a_record_is_in_the_table_for_a_while(table: Table[Shape]) -> None:
    square = table.get("square")
    with table.temporarily(Shape("square", 5)), table.temporarily(Shape("pentagon", 5)):
        assert (table.get("square").sides, table.get("pentagon").sides) == (5, 5)
        assert table.names() == ["square", "triangle", "pentagon"]
    assert table.get("square") is square
    assert table.names() == ["square", "triangle"]


def test_a_package_that_was_installed_or_removed_is_noticed_when_it_is_asked_for(
    package: Callable[..., None], table: Table[Shape], monkeypatch: pytest.MonkeyPatch, modules: Path
) -> None:
    assert not table.has("hexagon") and table.get("square").sides == 4
    package("shapes-1", "SHAPE = Shape('hexagon', 6)", hexagon="shapes_1:SHAPE")
    table.search_again()
    assert table.get("hexagon").sides == 6
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(modules)])
    table.search_again()
    assert not table.has("hexagon") and table.get("square").sides == 4


def test_other_rows_are_not_loaded(table: Table[Shape]) -> None:
    assert [row.name for row in table.others({"square"})] == ["triangle"]
