"""How the node is, as `diagnostic_msgs`: one status for each network."""

from __future__ import annotations

from typing import Any, Final

from edgecnn.runners.live.loop.counters import Durations
from edgecnn_ros.messages import header_at
from edgecnn_ros.perception import Network, Perception

OK: Final = 0  # of DiagnosticStatus
WARN: Final = 1
ERROR: Final = 2
_FEWEST: Final = {50: 11, 95: 130}  # results that a percentile needs, at 99 % confidence


def diagnostics_message(perception: Perception, node: str, time_ns: int) -> Any:
    """A `DiagnosticArray`: level, and the figures behind it.

    WARN where pictures stay away or are refused, ERROR where the loop has ended though it was not stopped.
    """
    messages = perception.messages
    array = messages.of("diagnostic_msgs/msg/DiagnosticArray")
    statuses = [_status(perception, network, node) for network in perception.networks]
    return array(header=header_at(messages, time_ns, ""), status=statuses)


def _status(perception: Perception, network: Network, node: str) -> Any:
    level, words = _level(perception)
    pair = perception.messages.of("diagnostic_msgs/msg/KeyValue")
    return perception.messages.of("diagnostic_msgs/msg/DiagnosticStatus")(
        level=perception.messages.octet(level),
        name=f"{node}: {network.name}",
        message=words,
        hardware_id=network.runner.backend.opened.device_name,
        values=[pair(key=key, value=str(value)) for key, value in _figures(perception, network).items()],
    )


def _level(perception: Perception) -> tuple[int, str]:
    if perception.ended and perception.live:
        return ERROR, "ended: see the log"
    if perception.refusal is not None:
        return WARN, f"refused: {perception.refusal}"
    if perception.live and perception.silent_s > perception.settings.stale_after_s:
        return WARN, f"no picture for {perception.silent_s:.1f} s"
    return OK, "running"


def _figures(perception: Perception, network: Network) -> dict[str, Any]:
    runner, counters = network.runner, perception.counters.get(network.name)
    figures: dict[str, Any] = {
        "task": runner.task.name,
        "format": runner.format,
        "precision": runner.precision,
        "pictures": perception.received,
        "refused": perception.refused,
        "dropped (all networks)": perception.dropped,
    }
    if counters is None:
        return figures
    figures["results"] = counters.frames
    figures |= _percentiles("inference", counters.stages["infer"])
    return figures | (_percentiles("age when published", counters.age) if perception.live else {})


def _percentiles(name: str, durations: Durations) -> dict[str, str]:
    """Those for which there are enough durations."""
    return {
        f"{name} p{percent} (ms)": f"{durations.percentile_ms(percent):.1f}"
        for percent, fewest in _FEWEST.items()
        if durations.count >= fewest
    }
