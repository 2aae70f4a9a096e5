"""Keeps a small sample of the frames that the network is unsure of, with proposed labels, ready to be corrected."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import cv2
import msgspec
import numpy as np

from edgecnn.atomic import write_whole
from edgecnn.bounded import read_bounded
from edgecnn.errors import DataError, SpecError
from edgecnn.json_text import encode_json
from edgecnn.printable import shortened
from edgecnn.results import Detections, Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated, camera_in_files, check_folder, storage_error
from edgecnn.runners.live.sinks.kind import Setting
from edgecnn.tasks import TASKS

if TYPE_CHECKING:
    from typing import Self

DEFAULT_COUNT: Final = 200
_MOST_COUNT: Final = 100_000
_LABELS: Final = "labels.json"
_QUALITY: Final = 95
_APART_S: Final = 10.0  # neighbouring frames teach the same
_UNSURE: Final = 0.15  # above the threshold
_BACK_S: Final = 1.0  # an object that is away for longer has left
_STEADY_FRAMES: Final = 5
_LARGEST_LABELS: Final = 64 << 20


class Flicker:
    """Finds frames in which an object is missing that was there before and is there again afterwards."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}  # by track: in how many frames, and when last
        self._missing: dict[int, tuple[Frame, Result]] = {}

    def update(self, frame: Frame, result: Result, objects: Detections, at_s: float) -> tuple[Frame, Result] | None:
        """Look at the next frame; returns the earlier one in which an object was missing that is back now."""
        ids = set() if objects.track_ids is None else {int(each) for each in objects.track_ids if each >= 0}
        found = None
        for track in ids:
            missed = self._missing.pop(track, None)
            found = found or missed
            self._seen[track] = (self._seen.get(track, (0, 0.0))[0] + 1, at_s)
        for track, (frames, last_s) in list(self._seen.items()):
            if track in ids:
                continue
            if at_s - last_s > _BACK_S:
                del self._seen[track]
                self._missing.pop(track, None)
            elif frames >= _STEADY_FRAMES:
                self._missing.setdefault(track, (frame, result))
        return found


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int
    why: str = ""


class _Info(msgspec.Struct):
    taken: int = 0


class _Labels(msgspec.Struct):
    """What is read again; a labelling tool may have left the rest out."""

    images: list[_Image]
    annotations: list[dict[str, Any]]
    info: _Info = msgspec.field(default_factory=_Info)


class HardFrameSink:
    """Writes FOLDER/CAMERA/images/*.jpg, as the camera gave them, and FOLDER/CAMERA/labels.json in COCO's form.

    A frame is hard in which an object's score is just above the threshold, or in which a tracked object is missing that
    is there before and after. At most one in 10 s is taken; of all that were, a random sample of `most` stays. Nothing
    is sent anywhere, and others than this user can't read the folder.

    Args:
        folder: for all cameras.
        name: the camera's.
        labels: the network's class names.
        threshold: returns the detector's score threshold.
        most: pictures that are kept.
        live: True for a live source.
        chance: decides which stay.

    Raises:
        StorageError: the folder can't be written.
        DataError: its labels.json is another's.
    """

    name = "hard_frames"

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        labels: tuple[str, ...],
        threshold: Any,
        most: int = DEFAULT_COUNT,
        live: bool = True,
        chance: random.Random | None = None,
    ) -> None:
        self.folder = Path(folder) / camera_in_files(name)
        self.written = [self.folder]
        self._labels, self._threshold, self._most, self._live = labels, threshold, most, live
        self._chance = chance or random.Random()
        self._flicker = Flicker()
        self._next_s = -np.inf
        self._taken = 0  # of which a sample is kept
        self._kept: dict[str, dict[str, Any]] = {}
        try:
            (self.folder / "images").mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
        except OSError as failed:
            raise storage_error(self.folder, failed) from failed
        self._read()

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Look at one result.

        Raises:
            StorageError: the disk is full, or not writable.
        """
        objects = TASKS.of(result).objects(result)
        if objects is None:
            return
        at_s = frame.at_ns(live=self._live) * 1e-9
        flickered = self._flicker.update(frame, result, objects, at_s)
        if at_s < self._next_s:
            return
        unsure = (objects.scores < float(self._threshold()) + _UNSURE).any()
        hard = flickered or ((frame, result) if unsure else None)
        if hard is not None:
            self._next_s = at_s + _APART_S
            self._take(*hard, why="flicker" if flickered else "unsure")

    def _take(self, frame: Frame, result: Result, *, why: str) -> None:
        self._taken += 1
        gone = None
        if len(self._kept) >= self._most:
            if self._chance.random() >= self._most / self._taken:
                return
            gone = self._chance.choice(sorted(self._kept))
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(frame.captured_unix_ns // 10**9))
        name = f"{moment}.{frame.captured_unix_ns // 10**6 % 1000:03d}Z.jpg"
        jpeg = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        try:
            write_whole(self.folder / "images" / name, jpeg)
            if gone is not None:
                del self._kept[gone]
            height, width = frame.image.shape[:2]
            boxes = [{**box, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0} for box in result.to_coco()]
            self._kept[name] = {"width": width, "height": height, "why": why, "boxes": boxes}
            self._write()
            if gone is not None:
                (self.folder / "images" / gone).unlink(missing_ok=True)
        except OSError as failed:
            raise storage_error(self.folder, failed) from failed

    def _write(self) -> None:
        """The labels of all that are kept; proposals of the network, which a person corrects."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (name, kept) in enumerate(sorted(self._kept.items()), 1):
            size = {"width": kept["width"], "height": kept["height"]}
            images.append({"id": number, "file_name": f"images/{name}", **size, "why": kept["why"]})
            for box in kept["boxes"]:
                annotations.append({**box, "id": len(annotations) + 1, "image_id": number})
        categories = [{"id": number, "name": label} for number, label in enumerate(self._labels)]
        info = {"description": "proposed by the network that ran: correct them", "taken": self._taken}
        document = {"info": info, "images": images, "annotations": annotations, "categories": categories}
        write_whole(self.folder / _LABELS, encode_json(document))

    def _read(self) -> None:
        """What an earlier run kept, corrected since or not; pictures that it doesn't name are left alone."""
        path = self.folder / _LABELS
        try:
            found = msgspec.json.decode(read_bounded(path, _LARGEST_LABELS), type=_Labels)
            kept = {each.id: (Path(each.file_name).name, each) for each in found.images}
            boxes: dict[int, list[dict[str, Any]]] = {number: [] for number in kept}
            for box in found.annotations:
                boxes[box["image_id"]].append(box)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as wrong:
            raise DataError(
                f"{path} is not what --hard-frames writes ({type(wrong).__name__}: {shortened(wrong)}), and may be "
                "your work: move it away, or name another folder"
            ) from wrong
        for number, (name, image) in kept.items():
            if (self.folder / "images" / name).is_file():
                size = {"width": image.width, "height": image.height}
                self._kept[name] = {**size, "why": image.why, "boxes": boxes[number]}
        self._taken = max(found.info.taken, len(self._kept))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: all that is kept is written."""

    @property
    def remark(self) -> str | None:
        """For the end of the run."""
        return f"{len(self._kept)} hard frames in {self.folder}" if self._kept else None


def check_hard_frames(folder: str | Path, words: Mapping[str, Any], *, tracks: bool) -> None:
    """Refuse what can't be.

    Raises:
        SpecError: no possible number of frames, or a folder that is in no folder.
    """
    check_folder(folder, words, tracks=tracks)
    _count(words)


def open_hard_frames(folder: str | Path, setting: Setting) -> HardFrameSink:
    """The sink of a run.

    Raises:
        SpecError: no possible number, or a task that finds no objects.
    """
    runner = setting.runner
    if not runner.task.finds_objects():
        raise SpecError(f"--hard-frames is for detectors: the network's task is {runner.task.name}")
    return HardFrameSink(
        folder,
        name=setting.cameras[0].name,
        labels=tuple(runner.task.labels),
        threshold=lambda: runner.task.thresholds.get("score") or 0.0,
        most=_count(setting.words),
        live=setting.camera.live,
    )


def _count(words: Mapping[str, Any]) -> int:
    count = words.get("keep_hard_frames") or DEFAULT_COUNT
    if not isinstance(count, int) or not 1 <= count <= _MOST_COUNT:
        raise SpecError(f"--keep-hard-frames: expected 1 to {_MOST_COUNT} frames, got {count}")
    return count
