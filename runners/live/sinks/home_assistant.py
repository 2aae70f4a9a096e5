"""Messages to Home Assistant over MQTT: its sensors, and their state once a second.

The form is that of its MQTT discovery, https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. Sensors
read PREFIX/state instead of every result, because its database stores each value that it receives.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, TypeAlias

from edgecnn._version import __version__
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.tasks import TASKS

Config: TypeAlias = dict[str, Any]

_STALE_S = 60  # after this time without a frame, the camera's sensors become unavailable
_OF_ALL: dict[str, tuple[str, Config]] = {
    "fps": (
        "Frame rate",
        {"value_template": "{{ value_json.fps }}", "unit_of_measurement": "fps", "icon": "mdi:speedometer"},
    ),
    "age_ms": (
        "Result age",
        {"value_template": "{{ value_json.age_ms }}", "unit_of_measurement": "ms", "device_class": "duration"},
    ),
}


def discovery(prefix: str, task: str) -> dict[str, Config]:
    """The sensors of a run: each retained topic with its configuration.

    Args:
        prefix: prefix of the topics for results; it is also the device's name.
        task: the task's name, which decides what the first sensor shows.

    Raises:
        UnknownNameError: there is no task of that name.
    """
    sensor = TASKS.get(task).sensor
    identity = f"edgecnn_{identity_of(prefix)}"
    common: Config = {
        "state_topic": f"{prefix}/state",
        "availability_topic": f"{prefix}/status",
        "payload_available": "online",
        "payload_not_available": "offline",
        "expire_after": _STALE_S,
        "device": {
            "identifiers": [identity],
            "name": prefix,
            "manufacturer": "edgecnn",
            "model": task,
            "sw_version": __version__,
        },
    }
    shown: Config = {
        "value_template": f"{{{{ value_json.{sensor.key} }}}}",
        "json_attributes_template": f"{{{{ value_json.{sensor.figures_key} | tojson }}}}",
        "json_attributes_topic": f"{prefix}/state",
        "icon": sensor.icon,
        **({"state_class": "measurement"} if sensor.number else {}),
    }
    sensors = {sensor.key: (sensor.name, shown)}
    for key, (name, config) in _OF_ALL.items():
        sensors[key] = (name, {**config, "state_class": "measurement", "entity_category": "diagnostic"})
    return {
        f"homeassistant/sensor/{identity}/{key}/config": {
            "name": name,
            "unique_id": f"{identity}_{key}",
            **common,
            **config,
        }
        for key, (name, config) in sensors.items()
    }


def identity_of(prefix: str) -> str:
    """A device's id, in the characters that ids may have: different prefixes give different, stable ids.

    In a prefix of plain words, slashes become underscores; to any other prefix a hash is added, so that no two ids are
    equal.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", prefix)
    if re.fullmatch(r"[A-Za-z0-9/-]+", prefix) and not re.search(r"_[0-9a-f]{8}$", plain):
        return plain
    return f"{plain}_{hashlib.sha256(prefix.encode()).hexdigest()[:8]}"


def state_of(frame: Frame, result: Result, *, fps: float | None) -> Config:
    """The sensors' values; the rate is null until it is known."""
    state: Config = {"fps": None if fps is None else round(fps, 1), "age_ms": round(frame.age_ns / 1e6, 1)}
    task = TASKS.of(result)
    figures = {label: round(figure, 4) for label, figure in task.figures(result).items()}
    return {**state, task.sensor.key: task.headline(result), task.sensor.figures_key: figures}
