"""What Home Assistant is told over MQTT: which sensors there are, and their state once a second.

The form is that of its MQTT discovery, https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. Sensors
read PREFIX/state and not every result: its database keeps each value that it sees.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, TypeAlias

from edgecnn import __version__
from edgecnn.results import Classification, Detections, Instances, Result
from edgecnn.runners.live.frames import Frame

Config: TypeAlias = dict[str, Any]

_STALE_S = 60  # a camera that gives nothing for so long makes its sensors unavailable
_OF_TASK: dict[str, tuple[str, Config]] = {
    "objects": (
        "Objects",
        {
            "value_template": "{{ value_json.objects }}",
            "json_attributes_template": "{{ value_json.counts | tojson }}",
            "state_class": "measurement",
            "icon": "mdi:shape",
        },
    ),
    "label": (
        "Label",
        {
            "value_template": "{{ value_json.label }}",
            "json_attributes_template": "{{ value_json.shares | tojson }}",
            "icon": "mdi:label",
        },
    ),
}
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
        prefix: of the topics that results go to; it is also the device's name.
        task: the task's name; of "classify" and "segment", the label is told, of any other the objects' number.
    """
    identity = "edgecnn_" + re.sub(r"[^A-Za-z0-9_-]", "_", prefix)
    first = "label" if task in {"classify", "segment"} else "objects"
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
            "model": task or "network",
            "sw_version": __version__,
        },
    }
    sensors = {first: (_OF_TASK[first][0], {**_OF_TASK[first][1], "json_attributes_topic": f"{prefix}/state"})}
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


def state_of(frame: Frame, result: Result, *, fps: float | None) -> Config:
    """What the sensors show; the rate is null until it is known."""
    state: Config = {"fps": None if fps is None else round(fps, 1), "age_ms": round(frame.age_ns / 1e6, 1)}
    if isinstance(result, Detections | Instances):
        found = result.detections if isinstance(result, Instances) else result
        counts = Counter(found.labels[class_id] for class_id in found.class_ids.tolist())
        return {**state, "objects": len(found), "counts": dict(counts.most_common())}
    ranked = dict(result) if isinstance(result, Classification) else result.shares()
    shares = {label: round(share, 4) for label, share in ranked.items()}
    return {**state, "label": next(iter(shares), None), "shares": shares}
