"""Labels of each form: one file of a small data set is the input, the others are as they should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz.target import SEEDS, Attempt, Target

_JSON_WORDS = (b'"bbox"', b'"segmentation"', b'"counts"', b'"size"', b"[1e300,1,1,1]", b"{}", b"null", b"1e999", b"0.5")
_XML_WORDS = (
    b"<object>",
    b"</object>",
    b"<!DOCTYPE a>",
    b"<![CDATA[",
    b"&lt;",
    b"&#0;",
    b"<bndbox>",
    b"nan",
    b"<xmin>",
)
_YAML_WORDS = (
    b"names:",
    b"train:",
    b"- ",
    b"&a ",
    b"*a",
    b"!!python/object:os.system",
    b"? ",
    b"---\n",
    b"{a: b}",
    b"|\n",
)
NAMES = b"red\ngreen\nblue\n"


def _data_set(files: Mapping[str, bytes], mutated: str) -> Callable[[], Attempt]:
    """Looks at a data set as `edgecnn data` does, and opens it for each of its tasks as `eval` does."""

    def prepare() -> Attempt:
        from edgecnn.cli._verb import define
        from edgecnn.datasets import FORMS, open_dataset
        from edgecnn.errors import DataError
        from edgecnn.tasks import TASKS
        from tests.fuzz.make_seeds import picture_of

        verb, picture = define("data"), picture_of("png")
        ids = (SEEDS / "class-map" / "palette.png").read_bytes()
        kinds = {kind for form in FORMS for kind in form.truths}
        tasks = [task.name for task in TASKS if task.truth in kinds]

        def attempt(content: bytes, folder: Path) -> None:
            for name, text in {**files, mutated: content}.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes({_PICTURE: picture, _IDS: ids}.get(text, text))
            verb.run({"data": folder})
            refused: list[DataError] = []
            for task in tasks:
                try:
                    samples = open_dataset(folder, task=task, labels=("red", "green", "blue"))
                except DataError as wrong:
                    refused.append(wrong)
                    continue
                for sample in samples:
                    sample.truth(sample.image())
            if len(refused) == len(tasks):
                raise refused[0]

        return attempt

    return prepare


def _folders() -> Attempt:
    """Class folders, whose names are the input: a line each."""
    from edgecnn.cli._verb import define
    from edgecnn.datasets import open_dataset
    from tests.fuzz.make_seeds import picture_of

    verb, picture = define("data"), picture_of("png")

    def attempt(content: bytes, folder: Path) -> None:
        for line in content.split(b"\n")[:50]:
            name = line.replace(b"\0", b"").replace(b"/", b"")[:200].decode("utf-8", "surrogateescape")
            if name not in {"", ".", ".."}:
                (folder / name).mkdir(exist_ok=True)
                (folder / name / "a.png").write_bytes(picture)
        verb.run({"data": folder})
        for sample in open_dataset(folder, task="classify", labels=()):
            sample.truth(sample.image())

    return attempt


_PICTURE, _IDS = b"(a picture)", b"(class ids)"
_YOLO = {"images/a.png": _PICTURE, "labels/a.txt": b"0 0.5 0.5 0.2 0.2\n", "data.yaml": b"names: [red, green, blue]\n"}
_VOC = {"JPEGImages/a.png": _PICTURE}
_MASKS = {"images/a.png": _PICTURE, "classes.txt": NAMES}

TARGETS = (
    Target(
        name="coco",
        title="COCO JSON",
        prepare=_data_set({"a.png": _PICTURE, "b.png": _PICTURE}, "instances.json"),
        words=_JSON_WORDS,
    ),
    Target(
        name="yolo", title="YOLO's .txt", prepare=_data_set(_YOLO, "labels/a.txt"), words=(b"nan", b" ", b"\n", b"1e9")
    ),
    Target(
        name="data-yaml",
        title="data.yaml",
        prepare=_data_set(
            {**_YOLO, "val/images/b.png": _PICTURE, "val/labels/b.txt": b"1 0.5 0.5 0.1 0.1\n"}, "data.yaml"
        ),
        words=_YAML_WORDS,
    ),
    Target(name="voc", title="Pascal VOC's XML", prepare=_data_set(_VOC, "Annotations/a.xml"), words=_XML_WORDS),
    Target(
        name="voc-list",
        title="Pascal VOC's lists",
        prepare=_data_set(
            {
                **_VOC,
                "Annotations/a.xml": b"<annotation><object><name>red</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
                b"<xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>",
            },
            "ImageSets/Main/val.txt",
        ),
    ),
    Target(
        name="class-map",
        title="masks of a data set",
        prepare=_data_set(_MASKS, "masks/a.png"),
        words=(b"PLTE", b"IDAT"),
    ),
    Target(
        name="label-map",
        title="label maps of masks",
        prepare=_data_set({"JPEGImages/a.png": _PICTURE, "SegmentationClass/a.png": _IDS}, "labelmap.txt"),
    ),
    Target(
        name="class-names",
        title="lists of class names",
        prepare=_data_set({"images/a.png": _PICTURE, "labels/a.txt": b"0 0.5 0.5 0.2 0.2\n"}, "classes.txt"),
    ),
    Target(name="folders", title="names of class folders", prepare=_folders),
)
