"""One camera as a device of Home Assistant over MQTT: its entities, their state, and the commands that they send.

The form is that of its MQTT discovery, https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. Entities
read PREFIX/state, once a second, instead of every result, because its database stores each value that it receives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from edgecnn._version import __version__
from edgecnn.errors import SpecError
from edgecnn.printable import distinct_name
from edgecnn.results import LineCount, Result
from edgecnn.runners.live.frame import Frame
from edgecnn.tasks import TASKS

if TYPE_CHECKING:
    from edgecnn.runners.live.controls import Controls

Config: TypeAlias = dict[str, Any]

_ROOT: Final = "homeassistant"
_EXPIRES_S: Final = 60  # after this time without a message, entities become unavailable
_OLD_S: Final = 5.0  # a result that is older says nothing of now
_STATES: Final = ("connecting", "live", "stalled", "lost", "file", "paused", "ended")
_MEASURED: Final[Config] = {"state_class": "measurement"}
_COUNTED: Final[Config] = {"state_class": "total_increasing"}  # it begins at 0 when the run does
_DIAGNOSTIC: Final[Config] = {"entity_category": "diagnostic"}


class HomeAssistantDevice:
    """A camera's entities.

    Args:
        prefix: prefix of its topics; it is also the device's name.
        task: the task's name, which decides what the first sensor shows.
        classes: those that get a sensor each.
        zones, lines: names of what is counted.
        state: returns the source's state.
        controls: what its switches change; None for no switches.

    Raises:
        UnknownNameError: there is no task of that name.
    """

    def __init__(
        self,
        prefix: str,
        task: str,
        *,
        classes: Sequence[str] = (),
        zones: Sequence[str] = (),
        lines: Sequence[str] = (),
        state: Callable[[], str] = lambda: "live",
        controls: Controls | None = None,
    ) -> None:
        self.prefix, self._task = prefix, TASKS.get(task)
        self._classes, self._zones, self._lines = tuple(classes), tuple(zones), tuple(lines)
        self._state, self._controls = state, controls
        self._identity = f"edgecnn_{identity_of(prefix)}"

    @property
    def all_configs(self) -> str:
        """The filter for retained messages of all its entities, also of those of earlier runs."""
        return f"{_ROOT}/+/{self._identity}/+/config"

    def discovery(self) -> dict[str, Config]:
        """Each entity's retained topic with its configuration."""
        found = {}
        for component, key, name, config in self._entities():
            unique = f"{self._identity}_{key}"
            identity = {"name": name, "unique_id": unique, "default_entity_id": f"{component}.{unique}"}
            found[f"{_ROOT}/{component}/{self._identity}/{key}/config"] = {
                **identity,
                **self._common(component),
                **config,
            }
        return found

    def _common(self, component: str) -> Config:
        availability = {
            "availability_topic": f"{self.prefix}/status",
            "payload_available": "online",
            "payload_not_available": "offline",
        }
        device = {
            "identifiers": [self._identity],
            "name": self.prefix,
            "manufacturer": "edgecnn",
            "model": self._task.name,
            "sw_version": __version__,
        }
        reads = {} if component == "image" else {"state_topic": f"{self.prefix}/state"}
        expires = {"expire_after": _EXPIRES_S} if component in ("sensor", "binary_sensor") else {}
        origin = {"name": "edgecnn", "sw_version": __version__}
        return {**reads, **expires, **availability, "device": device, "origin": origin}

    def _entities(self) -> list[tuple[str, str, str, Config]]:
        """Component, key, name, and what is special of each."""
        return [*self._of_results(), *self._of_places(), *self._of_run(), *self._switches()]

    def _of_results(self) -> list[tuple[str, str, str, Config]]:
        sensor = self._task.sensor
        shown: Config = {
            "value_template": f"{{{{ value_json.{sensor.key} }}}}",
            "json_attributes_template": f"{{{{ value_json.{sensor.figures_key} | tojson }}}}",
            "json_attributes_topic": f"{self.prefix}/state",
            "icon": sensor.icon,
            **(_MEASURED if sensor.number else {}),
        }
        found: list[tuple[str, str, str, Config]] = [("sensor", sensor.key, sensor.name, shown)]
        if self._task.finds_objects():
            found.append(("binary_sensor", "occupancy", "Occupancy", _occupied("value_json.occupancy")))
        for label in self._classes:
            key = f"class_{identity_of(label)}"
            found.append(("sensor", key, label.capitalize(), _number(f"value_json.classes['{identity_of(label)}']")))
        return found

    def _of_places(self) -> list[tuple[str, str, str, Config]]:
        found: list[tuple[str, str, str, Config]] = []
        for name in self._zones:
            key = identity_of(name)
            of = f"value_json.zones['{key}']"
            found += [
                ("sensor", f"zone_{key}_inside", f"{name} inside", _number(f"{of}.inside")),
                ("sensor", f"zone_{key}_entered", f"{name} entered", _number(f"{of}.entered", _COUNTED)),
                ("binary_sensor", f"zone_{key}_occupancy", f"{name} occupancy", _occupied(f"{of}.occupancy")),
            ]
        for name in self._lines:
            key = identity_of(name)
            of = f"value_json.lines['{key}']"
            found += [
                ("sensor", f"line_{key}_{way}", f"{name} {way}", _number(f"{of}.{way}", _COUNTED))
                for way in ("in", "out")
            ]
        return found

    def _of_run(self) -> list[tuple[str, str, str, Config]]:
        rate = _number("value_json.fps", {**_MEASURED, "unit_of_measurement": "fps", "icon": "mdi:speedometer"})
        age = _number("value_json.age_ms", {**_MEASURED, "unit_of_measurement": "ms", "device_class": "duration"})
        state = {"value_template": "{{ value_json.state }}", "device_class": "enum", "options": list(_STATES)}
        return [
            ("sensor", "fps", "Frame rate", {**rate, **_DIAGNOSTIC}),
            ("sensor", "age_ms", "Result age", {**age, **_DIAGNOSTIC}),
            ("sensor", "state", "State", {**state, **_DIAGNOSTIC, "icon": "mdi:cctv"}),
            ("image", "snapshot", "Snapshot", {"image_topic": f"{self.prefix}/snapshot", "content_type": "image/jpeg"}),
        ]

    def _switches(self) -> list[tuple[str, str, str, Config]]:
        if self._controls is None:
            return []
        found = [("switch", "paused", "Pause", self._switch("paused", "mdi:pause"))]
        if self._controls.records:
            found.append(("switch", "recording", "Record", self._switch("recording", "mdi:record-rec")))
        if self._controls.threshold is not None:
            limits = {"min": 0.01, "max": 0.99, "step": 0.01, "mode": "slider", "icon": "mdi:tune-vertical"}
            topics = {"command_topic": f"{self.prefix}/threshold/set", "value_template": "{{ value_json.threshold }}"}
            found.append(("number", "threshold", "Score threshold", {**topics, **limits, "entity_category": "config"}))
        return found

    def _switch(self, key: str, icon: str) -> Config:
        return {
            "command_topic": f"{self.prefix}/{key}/set",
            "value_template": f"{{{{ 'ON' if value_json.{key} else 'OFF' }}}}",
            "payload_on": "ON",
            "payload_off": "OFF",
            "state_on": "ON",
            "state_off": "OFF",
            "icon": icon,
        }

    def state(self, newest: tuple[Frame, Result] | None, *, fps: float | None) -> Config:
        """The values of all entities; of results, null where there is no current one."""
        state: Config = {"state": self._state(), "fps": None if fps is None else round(fps, 1), "age_ms": None}
        if newest is not None:
            frame, result = newest
            old = time.monotonic_ns() - frame.captured_ns > _OLD_S * 1e9
            state |= {"age_ms": round(frame.age_ns / 1e6, 1)} | self._values(result, old=old)
        if self._controls is not None:
            controls = self._controls
            state |= {"paused": controls.paused.is_set(), "recording": bool(controls.recording)}
            state |= {"threshold": controls.threshold}
        return state

    def _values(self, result: Result, *, old: bool) -> Config:
        """What a result says; of an old one, only the counts so far are true now."""
        task = TASKS.of(result)
        figures = {label: round(figure, 4) for label, figure in task.figures(result).items()}
        values: Config = {} if old else {task.sensor.key: task.headline(result), task.sensor.figures_key: figures}
        if task.finds_objects() and not old:
            values["occupancy"] = bool(figures)
            values["classes"] = {identity_of(label): figures.get(label, 0) for label in self._classes}
        zones: Config = {}
        lines: Config = {}
        for count in task.counts(result):
            key = identity_of(count.name)
            if isinstance(count, LineCount):
                into, out = sum(count.in_by_class.values()), sum(count.out_by_class.values())
                lines[key] = {"name": count.name, "in": into, "out": out}
            else:
                inside = None if old else sum(count.inside_by_class.values())
                occupied = None if old else bool(inside)
                entered = sum(count.entered_by_class.values())
                zones[key] = {"name": count.name, "inside": inside, "entered": entered, "occupancy": occupied}
        return {**values, **({"zones": zones} if zones else {}), **({"lines": lines} if lines else {})}

    def commands(self) -> tuple[str, ...]:
        """The topics on which commands come."""
        keys = [key for component, key, _, _ in self._switches()]
        return tuple(f"{self.prefix}/{key}/set" for key in keys)

    def obey(self, topic: str, payload: bytes) -> None:
        """Do what a command says.

        Raises:
            SpecError: it is no command, or its value is not allowed.
        """
        word = payload[:64].decode("utf-8", "replace").strip()
        key = topic.removeprefix(f"{self.prefix}/").removesuffix("/set")
        if self._controls is None or topic not in self.commands():
            raise SpecError(f"{topic} is no command")
        if key == "threshold":
            try:
                self._controls.set_threshold(float(word))
            except ValueError:
                raise SpecError(f"{topic}: expected a number, got {word!r}") from None
        elif word not in ("ON", "OFF"):
            raise SpecError(f"{topic}: expected ON or OFF, got {word!r}")
        elif key == "paused":
            self._controls.pause(word == "ON")
        else:
            self._controls.record(word == "ON")


def identity_of(prefix: str) -> str:
    """A device's id, in the characters that ids may have: different prefixes give different, stable ids.

    In a prefix of plain words, slashes become underscores; to any other prefix a hash is added, so that no two ids are
    equal.
    """
    return distinct_name(prefix, r"[A-Za-z0-9/-]+")


def _number(value: str, more: Config | None = None) -> Config:
    return {"value_template": f"{{{{ {value} }}}}", **(_MEASURED if more is None else more)}


def _occupied(value: str) -> Config:
    """As Home Assistant's binary sensor; None is unknown."""
    template = f"{{{{ 'None' if {value} is none else ('ON' if {value} else 'OFF') }}}}"
    return {"value_template": template, "payload_on": "ON", "payload_off": "OFF", "device_class": "occupancy"}
