"""YOLO's data.yaml: class names, pictures of each part, and the shape of key points.

A part is a folder, a list of pictures, or several of those, relative to `path:` where that is given, otherwise to the
file's own folder. Roboflow writes `../valid/images` for a folder next to the file: if the first does not exist, the
second is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.bounded import read_beginning
from edgecnn.datasets.base import beginning, read_names
from edgecnn.datasets.splits import TEST, TRAIN, VAL, split_by_name
from edgecnn.datasets.untrusted_documents import Yaml, read_text, read_yaml
from edgecnn.errors import DataError
from edgecnn.pictures import is_picture

_SPLIT_KEYS = ("train", "val", "valid", "validation", "test")
_MOST_CLASSES = 65536
_LOOKED_AT = 1_000_000  # bytes
_WHAT = "a folder, a list of pictures (.txt), or a list of those"


@dataclass(frozen=True)
class DataYaml:
    """The description of a YOLO data set, without its labels.

    Attributes:
        file: the data.yaml, or the file with the names.
        names: class names, by id; empty where there are none.
        splits: "train", "val", "test" → their places in the file.
        base: folder for relative paths.
        kpt_shape: key points per row, and numbers per key point; None where there are none.
    """

    file: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    base: Path
    kpt_shape: tuple[int, int] | None

    def pictures(self, split: str) -> list[Path]:
        """The pictures of a part, sorted by name.

        Raises:
            DataError: a place in the file does not exist.
        """
        found: list[Path] = []
        for declared in self.splits[split]:
            place = self._place(declared)
            if place is None:
                raise DataError(
                    f"{self.file} gives {declared!r} for {split}, which does not exist"
                    f"{f' (relative to {self.base})' if not Path(declared).is_absolute() else ''}: expected {_WHAT}"
                )
            if place.is_dir():
                if place.resolve() in self.file.resolve().parent.parents:
                    raise DataError(
                        f"{self.file} gives {declared!r} for {split}, a folder around its own: expected {_WHAT}"
                    )
                found += sorted(p for p in place.rglob("*") if is_picture(p) and p.is_file())
            elif is_picture(place):
                found.append(place)
            else:
                found += pictures_in_list(place, self.base)
        if not found:
            raise DataError(f"{self.file} gives {', '.join(self.splits[split])} for {split}, which has no pictures")
        return list(dict.fromkeys(found))

    def is_there(self, split: str) -> bool:
        """Whether the places of a part exist."""
        return all(self._place(declared) is not None for declared in self.splits[split])

    def _place(self, declared: str) -> Path | None:
        """The path of a part: as written, or in Roboflow's convention without the `../` in front."""
        try:
            for name in dict.fromkeys((declared, declared.removeprefix("../"))):
                for base in dict.fromkeys((self.base, self.file.parent)):
                    if (base / name).exists():
                        return base / name
        except (OSError, ValueError) as failed:
            raise DataError(f"{self.file}: {declared[:60]!r} is not a valid path: {failed}") from failed
        return None


def description_of(path: Path) -> DataYaml | None:
    """The description of a YOLO data set: the data.yaml itself, one in the folder, or names there or in its parent.

    Raises:
        DataError: a broken data.yaml, or several.
    """
    if path.is_file():
        found = _read(path)
        if found is None:
            raise DataError(f"{path} does not describe a data set: expected `names:`, and `train:` and `val:`")
        return found
    own = _descriptions(path)
    if len([one for one in own if one.splits]) > 1:
        names = ", ".join(one.file.name for one in own if one.splits)
        raise DataError(f"{path} has several descriptions of data sets: {names}; give one of them as DATA")
    split = next((one for one in own if one.splits), None)
    if split is not None:
        return split
    for folder in (path, path.absolute().parent):
        for file in (folder / "classes.txt", *sorted(folder.glob("*.names"))):
            if file.is_file():
                return DataYaml(file, read_names(file), {}, folder, None)
        described = own if folder == path else _descriptions(folder)
        if len({one.names for one in described}) > 1:
            raise DataError(
                f"{folder} has several descriptions of data sets: {', '.join(one.file.name for one in described)}; "
                "give one of them as DATA"
            )
        if described:
            one = described[0]
            return DataYaml(one.file, one.names, {}, folder, one.kpt_shape)
    return None


def pictures_in_list(file: Path, root: Path) -> list[Path]:
    """The pictures in a list, relative to its own folder or to the data set's.

    Raises:
        DataError: it cannot be read, or names pictures that do not exist.
    """
    found, absent = [], []
    for line in read_text(file).splitlines():
        if not (name := line.strip()):
            continue
        if "\0" in name:
            raise DataError(f"{file} is not a list of pictures: it has a NUL byte")
        places = [place / name for place in (file.parent, root)]
        try:
            there = next((place for place in places if place.is_file()), None)
        except OSError:  # a name that is too long
            there = None
        if there is None:
            absent.append(name[:100])
        else:
            found.append(there)
    if absent:
        raise DataError(
            f"{len(absent)} of the {len(absent) + len(found)} pictures in {file} do not exist: {beginning(absent, 3)}"
        )
    return list(dict.fromkeys(found))


def _descriptions(folder: Path) -> list[DataYaml]:
    """The descriptions in a folder, among YAML files of other kinds."""
    found = []
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            described = _read(file)
        except DataError:
            if file.stem in {"data", "dataset"} or _may_describe(file):
                raise
            continue  # a template, or another use of YAML
        if described is not None:
            found.append(described)
    return found


def _may_describe(file: Path) -> bool:
    try:
        return b"names" in read_beginning(file, _LOOKED_AT)
    except OSError:
        return file.is_file()  # not a folder, nor a pipe


def _read(file: Path) -> DataYaml | None:
    """The description in a file; None where it is a YAML of another kind."""
    content = read_yaml(file)
    if not isinstance(content, dict) or "names" not in content:
        return None
    names = names_of(content["names"], str(file))
    if (declared := content.get("nc")) not in (None, "", str(len(names))):
        raise DataError(f"{file} has nc: {declared}, but {len(names)} names: {beginning(names)}")
    splits: dict[str, tuple[str, ...]] = {}
    for key in _SPLIT_KEYS:
        places = _places(content.get(key, ""), key, file)
        if places and split_by_name(key) in splits:
            raise DataError(f"{file} has both val: and {key}: remove one of them")
        if places:
            splits[split_by_name(key)] = places
    in_order = {split: splits[split] for split in (TRAIN, VAL, TEST) if split in splits}
    return DataYaml(file, names, in_order, _base(content.get("path", ""), file), _kpt_shape(content, file))


def names_of(declared: Yaml, where: str) -> tuple[str, ...]:
    """Class names by id, from a list or a mapping from id to name.

    Raises:
        DataError: neither, or ids that don't count from 0.
    """
    if isinstance(declared, list):
        named = {str(index): name for index, name in enumerate(declared)}
    elif isinstance(declared, dict):
        named = declared
    elif not declared.strip():
        return ()
    else:
        raise DataError(
            f"{where}: `names:` must be a list, or a mapping from class id to name; found {declared[:60]!r}"
        )
    by_id: dict[int, str] = {}
    for key, name in named.items():
        if not key.strip().isdecimal() or len(key) > 10 or int(key) >= _MOST_CLASSES:
            raise DataError(f"{where}: `names:` has the class id {key[:20]!r}; ids count from 0 to {_MOST_CLASSES - 1}")
        if not isinstance(name, str):
            raise DataError(f"{where}: the name of class {key} is a list or a mapping, not a text")
        if int(key) in by_id:
            raise DataError(f"{where}: `names:` has the class id {int(key)} twice")
        by_id[int(key)] = name.strip()
    if by_id and max(by_id) >= len(by_id):
        absent = next(index for index in range(max(by_id)) if index not in by_id)
        raise DataError(f"{where}: `names:` has a class {max(by_id)} but none with the id {absent}: ids count from 0")
    return tuple(by_id[index] for index in range(len(by_id)))


def _places(declared: Yaml, key: str, file: Path) -> tuple[str, ...]:
    items: Sequence[Yaml] = declared if isinstance(declared, list) else [declared]
    places = []
    for item in items:
        if not isinstance(item, str):
            raise DataError(f"{file}: `{key}:` must be {_WHAT}")
        if item.strip() not in {"", "null", "~"}:
            places.append(item.strip())
    return tuple(places)


def _base(declared: Yaml, file: Path) -> Path:
    """The folder for a description's paths: its `path:`, relative to its own folder or its parent, if it exists."""
    if not isinstance(declared, str):
        raise DataError(f"{file}: `path:` must be one folder")
    if not declared.strip() or "\0" in declared:
        return file.parent
    candidates = [file.parent / declared.strip(), file.parent.parent / declared.strip()]
    return next((place for place in candidates if place.is_dir()), file.parent)


def _kpt_shape(content: dict[str, Yaml], file: Path) -> tuple[int, int] | None:
    declared = content.get("kpt_shape")
    if declared is None or declared == "":
        return None
    if (
        isinstance(declared, list)
        and len(declared) == 2
        and all(isinstance(n, str) and n.isdecimal() for n in declared)
    ):
        points, numbers = (int(str(n)[:6]) for n in declared)
        if 0 < points <= 1000 and numbers in (2, 3):
            return points, numbers
    raise DataError(f"{file}: kpt_shape must be [key points, 2 or 3 numbers each]; found {str(declared)[:40]}")
