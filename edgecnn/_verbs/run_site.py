"""Run several cameras that a file describes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from edgecnn._verbs.run import run
from edgecnn.errors import EdgeCnnError
from edgecnn.options import Option, kinds
from edgecnn.options.signature import Setting, load, settings_of
from edgecnn.options.site_file import SiteTables, read_site
from edgecnn.runners.live.live_run import ObjectsAsked, SinksAsked, SourcesAsked
from edgecnn.runners.live.site.plan import CameraPlan, NetworkPlan, SitePlan, content_of, secrets_of
from edgecnn.runners.live.site.site import PlanError, Site, SiteSummary
from edgecnn.runners.live.tracking.selection import Selection

# In Python, `run` takes it as an argument of its own.
_SOURCE: Final = Setting(
    parameter="source", option=Option(), kind=kinds.SOURCE, help="", default=inspect.Parameter.empty
)
_NETWORK: Final = ("device", "format", "precision", "threads", "trusted_keys")
_THRESHOLDS: Final = ("score", "nms_iou")
_SINKS: Final = ("record", "jsonl", "mqtt", "events", "hard_frames", "drift")
_EVENT_WORDS: Final = ("event_after", "event_before", "event_apart", "keep_events")
_WORDS: Final = {
    "record": ("rotate", "keep"),
    "jsonl": ("rotate", "keep"),
    "mqtt": ("mqtt_qos", "home_assistant"),
    "events": _EVENT_WORDS,
    "hard_frames": ("keep_hard_frames",),
    "drift": ("drift_learn",),
}


def run_site(
    config: str | Path, *, given: Mapping[str, Any] | None = None, on_start: Callable[[Site], None] | None = None
) -> SiteSummary:
    """Run the cameras of a file, until all have ended, SIGINT or SIGTERM; SIGHUP reads the file again.

    On SIGHUP, cameras whose part of the file is unchanged run on without losing a frame; the others are stopped and
    started. A file with an error changes nothing. The page starts anew where a camera was added or removed.

    Args:
        config: a TOML file with [cameras.NAME] tables; see the page *Several cameras*.
        given: options that override the file's top level, by their keys.
        on_start: called with the cameras before they start.

    Raises:
        DataError: the file can't be read.
        PlanError: it has errors: all of them.
        BundleError, DeviceError, MissingDependencyError: a network can't be opened, or the page not be served.
    """
    read = partial(read_plan, config, given=given)
    site = Site(checked_plan(config, given=given), read)
    if on_start:
        on_start(site)
    return site.run()


def checked_plan(config: str | Path, *, given: Mapping[str, Any] | None = None) -> SitePlan:
    """What a file asks for, if nothing is wrong with it; nothing is opened.

    Raises:
        DataError, PlanError: as `run_site`.
    """
    plan = read_plan(config, given=given)
    if faults := plan.faults():
        raise PlanError.listing(str(config), faults)
    return plan


def read_plan(config: str | Path, *, given: Mapping[str, Any] | None = None) -> SitePlan:
    """What a file asks for.

    Raises:
        DataError, PlanError: as `run_site`; only what can't be understood, which is not all that can be wrong.
    """
    tables = read_site(Path(config), [*settings_of(run), _SOURCE])
    tables.of_all.update(given or {})
    cameras = [plan for name in tables.of_each if (plan := _camera(name, tables)) is not None]
    if tables.faults:
        raise PlanError.listing(str(config), tables.faults)
    of_all = tables.of_all
    return SitePlan(
        cameras=tuple(cameras),
        web=of_all.get("web"),
        web_token=of_all.get("web_token"),
        metrics=of_all.get("metrics"),
    )


def _camera(name: str, tables: SiteTables) -> CameraPlan | None:
    """A camera's plan; None where something is wrong, which is then among the faults."""
    values = {**tables.of_all, **tables.of_each[name]}
    missing = [key for key in ("source", "bundle") if key not in values]
    if missing:
        tables.faults.append(f"[cameras.{name}] {' and '.join(missing)} is missing")
        return None
    try:
        return _plan(name, values, own=tables.of_each[name])
    except EdgeCnnError as wrong:
        tables.faults.append(f"[cameras.{name}] {wrong}")
        return None


def _plan(name: str, values: Mapping[str, Any], *, own: Mapping[str, Any]) -> CameraPlan:
    source, bundle, mqtt = values["source"], str(values["bundle"]), values.get("mqtt")
    options = {key: values[_key(key)] for key in _NETWORK if _key(key) in values}
    return CameraPlan(
        name=name,
        network=NetworkPlan(bundle=bundle, options=tuple(sorted(options.items())), content=content_of(bundle)),
        thresholds={key: values.get(key) for key in _THRESHOLDS},
        sources=SourcesAsked(
            sources=(source,), capture=_record("capture", values), reconnect=_record("reconnect", values)
        ),
        objects=ObjectsAsked(
            track=values.get("track", False),
            count_lines=values.get("count_line", ()),
            zones=values.get("zone", ()),
            selection=Selection.parse(values.get("classes"), values.get("class_score", ()), values.get("mask", ())),
        ),
        sinks=_sinks(name, values, own),
        max_age_ms=values.get("max_age_ms"),
        limit=values.get("limit"),
        secrets=secrets_of(source, mqtt),
    )


def _sinks(name: str, values: Mapping[str, Any], own: Mapping[str, Any]) -> SinksAsked:
    """A camera's sinks; what the top of the file names gets the camera's name: street-door.mp4, street/door."""
    asked = {key: values[key] for key in _SINKS if values.get(key) is not None}
    defaults = {s.key: s.default for s in settings_of(run)}
    words = {word: values.get(word, defaults[word]) for key in asked for word in _WORDS[key]}
    for key, path in SinksAsked(asked=asked).paths("file").items():
        if key not in own:
            asked[key] = str(path.with_stem(f"{path.stem}-{name}"))
    if "mqtt" in asked and "mqtt" not in own:
        words["mqtt_topic"] = name
    return SinksAsked(asked=asked, words=words, more=tuple(values.get("sink", ())))


def _record(parameter: str, values: Mapping[str, Any]) -> Any:
    """A record of `run`, such as the capture settings, from the values for its fields; None without any."""
    fields = [s for s in settings_of(run) if s.parameter == parameter and s.record and s.key in values]
    return load(fields[0].record)(**{s.field: values[s.key] for s in fields}) if fields else None


def _key(parameter: str) -> str:
    """The key in the file of a parameter of `run`."""
    return next(s.key for s in settings_of(run) if s.parameter == parameter)
