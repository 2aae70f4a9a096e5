"""Results on buffers: GstAnalytics where GStreamer has it (1.24 and newer), and JSON in messages of the bus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from edgecnn.results import Detections, Result
from edgecnn.runners.live.cameras.gstreamer import gstreamer
from edgecnn.runners.live.tracking.tracker import UNTRACKED

ELEMENT = "edgecnninfer"
MESSAGE = "edgecnn-result"
_MOST_REMEMBERED = 10_000


@lru_cache(maxsize=1)
def analytics() -> Any:
    """The module gi.repository.GstAnalytics; None where it is not installed."""
    gstreamer()
    try:
        gi: Any = import_module("gi")
        gi.require_version("GstAnalytics", "1.0")
        return import_module("gi.repository.GstAnalytics")
    except (ImportError, ValueError):
        return None


def json_of(result: Result, pts_ns: int | None) -> str:
    """The result as `run --jsonl` writes it, with the buffer's time."""
    return json.dumps({"pts_ns": pts_ns, **result.to_dict()}, separators=(",", ":"))


def message_with(source: Any, text: str) -> Any:
    """A message for the bus: an element's, with a structure MESSAGE whose field "json" is the result."""
    gst = gstreamer()
    structure = gst.Structure.new_empty(MESSAGE)
    structure.set_value("json", text)
    return gst.Message.new_element(source, structure)


def attach(
    buffer: Any,
    objects: Detections | None,
    scores: Mapping[str, float],
    *,
    now_ns: int,
    first_seen_ns: dict[int, int],
) -> bool:
    """Attach what GstAnalytics has words for: boxes with label and score, track ids, classes.

    Args:
        buffer: to which metadata can be added.
        objects: the result's objects where the task has any.
        scores: label → score of the whole picture; empty where the task has none.
        now_ns: the buffer's time.
        first_seen_ns: when each followed object was seen first; updated.

    Returns:
        Whether GstAnalytics is there.
    """
    module = analytics()
    if module is None:
        return False
    quark = import_module("gi.repository.GLib").quark_from_string
    relations = module.buffer_add_analytics_relation_meta(buffer)
    if objects is not None:
        _attach_objects(module, relations, objects, quark, now_ns, first_seen_ns)
    for label, score in scores.items():
        relations.add_one_cls_mtd(score, quark(label))
    return True


def _attach_objects(
    module: Any, relations: Any, objects: Detections, quark: Any, now_ns: int, first_seen_ns: dict[int, int]
) -> None:
    tracks = [UNTRACKED] * len(objects) if objects.track_ids is None else objects.track_ids.tolist()
    for (box, score, label), track in zip(objects, tracks, strict=True):
        left, top, right, bottom = (round(side) for side in box.tolist())
        there, found = relations.add_od_mtd(quark(label), left, top, right - left, bottom - top, score)
        if there and track != UNTRACKED:
            followed, tracking = relations.add_tracking_mtd(track, first_seen_ns.setdefault(track, now_ns))
            if followed:
                tracking.update_last_seen(now_ns)
                relations.set_relation(module.RelTypes.RELATE_TO, found.id, tracking.id)
    while len(first_seen_ns) > _MOST_REMEMBERED:  # the oldest have gone
        del first_seen_ns[next(iter(first_seen_ns))]
