"""Merges a new bundle with the one that exists at its place: keeps what is still valid, and lists what would be
lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from edgecnn.bundle.evidence import AccuracyEvidence, Evidence, LatencyEvidence
from edgecnn.bundle.manifest import QUANTIZED, Artifact, Manifest

_MACHINE = ("cpu_model", "architecture", "board", "cores_machine", "memory_mb")
_MEASURED = ("device", "precision", "threads")


def merged(old: Manifest, new: Manifest, *, instead: bool = False) -> tuple[Manifest, list[str]]:
    """The merged manifest, and a list in words of what the old one loses.

    An artifact of the same network is kept if the new bundle has none for the same key; one that was made again and
    refused is kept only if it cannot easily be made again. Measurements of a file are kept with it.

    Args:
        old: the existing manifest.
        new: the new manifest.
        instead: True to keep no artifact that the new bundle lacks.
    """
    same = same_network(old, new) and not instead
    before = {artifact.key: artifact for artifact in old.artifacts}
    remade = {artifact.key for artifact in new.artifacts}
    refused = {_refused_key(refusal) for refusal in new.refused}
    kept: list[Artifact] = []
    lost: list[str] = []
    for artifact in old.artifacts:
        if artifact.key in remade:
            continue
        if same and (artifact.key not in refused or _worth(artifact)):
            kept.append(artifact)
        else:
            lost += _worth(artifact)
    artifacts = []
    for artifact in new.artifacts:
        replaced = before.get(artifact.key)
        if replaced is not None and replaced.files == artifact.files:
            evidence = merged_evidence(replaced.evidence, artifact.evidence)
            artifacts.append(msgspec.structs.replace(artifact, evidence=evidence))
            continue
        artifacts.append(artifact)
        if replaced is not None:
            lost += _unmeasured(replaced, artifact)
    order = list(before)
    together = sorted([*kept, *artifacts], key=lambda a: order.index(a.key) if a.key in order else len(order))
    others = [one for one in old.refused if same and _refused_key(one) not in refused | remade]
    return msgspec.structs.replace(new, artifacts=tuple(together), refused=(*others, *new.refused)), lost


def unavoidable_losses(old: Manifest, contract: Manifest, attempted: Collection[tuple[str, ...]]) -> list[str]:
    """What the old bundle will lose through artifacts that are still to be made, in words.

    For the same network, an identical float file keeps its measurements; int8 files never do.

    Args:
        old: the existing manifest.
        contract: the new manifest; its artifacts are ignored.
        attempted: keys of the artifacts that will be made.
    """
    if not same_network(old, contract):
        return [words for artifact in old.artifacts for words in _worth(artifact)]
    again = [artifact for artifact in old.artifacts if artifact.key in attempted and artifact.precision in QUANTIZED]
    return [words for artifact in again for words in _latencies(artifact)]


def merged_evidence(old: Evidence, new: Evidence) -> Evidence:
    """All measurements of one file; of repeated measurements, the new one."""
    return Evidence(
        parity=new.parity or old.parity,
        accuracy=tuple(_replaced(old.accuracy, new.accuracy, _accuracy_identity)),
        latency=tuple(_replaced(old.latency, new.latency, _latency_identity)),
        quantization=new.quantization or old.quantization,
        placement=new.placement or old.placement,
        overrides=tuple(dict.fromkeys((*old.overrides, *new.overrides))),
    )


def same_network(one: Manifest, other: Manifest) -> bool:
    """Whether artifacts of both can be in one bundle: the same contract, and the same weights."""
    return _contract(one) == _contract(other)


def _contract(manifest: Manifest) -> tuple[object, ...]:
    weights = [(layer.name, layer.kind, layer.weights) for layer in manifest.layers]
    source = msgspec.structs.replace(manifest.source, versions={})
    return (
        weights or source,
        manifest.frame,
        manifest.task,
        manifest.batch,
        manifest.inputs,
        manifest.outputs,
        manifest.in_graph,
        manifest.parameters,
    )


def _worth(artifact: Artifact) -> list[str]:
    """What is lost with an artifact that is removed without a successor and cannot easily be made again."""
    quantized = artifact.precision in QUANTIZED or bool(artifact.target)
    accuracy = () if quantized else artifact.evidence.accuracy
    return [
        *([artifact.label] if quantized else []),
        *_latencies(artifact),
        *_count_phrase(len(accuracy), "accuracy", "accuracies", artifact),
    ]


def _unmeasured(before: Artifact, now: Artifact) -> list[str]:
    """Measurements of an artifact that its successor lacks; int8 accuracy belongs to the file."""
    measured = {_accuracy_identity(one) for one in now.evidence.accuracy}
    known = () if before.precision in QUANTIZED else before.evidence.accuracy
    accuracy = [one for one in known if _accuracy_identity(one) not in measured]
    return [*_latencies(before), *_count_phrase(len(accuracy), "accuracy", "accuracies", before)]


def _latencies(artifact: Artifact) -> list[str]:
    return _count_phrase(len(artifact.evidence.latency), "latency", "latencies", artifact)


def _count_phrase(number: int, one: str, several: str, artifact: Artifact) -> list[str]:
    return [f"{number} measured {one if number == 1 else several} of {artifact.label}"] if number else []


def _refused_key(refusal: Any) -> tuple[str, ...]:
    key = (refusal.format, refusal.precision)
    return (*key, refusal.target) if refusal.target else key


def _replaced(old: Iterable[Any], new: Iterable[Any], identity: Any) -> list[Any]:
    """Both lists, without old measurements that were repeated."""
    again = {identity(one) for one in new}
    return [*(one for one in old if identity(one) not in again), *new]


def _accuracy_identity(measured: AccuracyEvidence) -> tuple[object, ...]:
    return measured.metric, measured.data, measured.precision, measured.device


def _latency_identity(measured: LatencyEvidence) -> tuple[object, ...]:
    """Two measurements of a file with the same identity (way of running, machine) measure the same thing."""
    figures, machine = measured.figures, measured.machine
    return tuple(repr(part.get(name)) for part, names in ((figures, _MEASURED), (machine, _MACHINE)) for name in names)
