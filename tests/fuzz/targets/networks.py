"""Weights, and exported programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.target import SEEDS, Attempt, Target

if TYPE_CHECKING:
    from torch import nn

_PICKLE_WORDS = (
    b"cos\nsystem\n",
    b"c__builtin__\neval\n",
    b"R.",
    b"\x80\x02",
    b"}q\x00",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
)
_GRAPH_WORDS = (
    b'"target"',
    b"torch.ops.aten.add.Tensor",
    b"torch.os.system",
    b'"as_int"',
    b'"expr_str"',
    b"s0",
    b"9**9**9",
)


def small_network() -> nn.Module:
    """Five logits, by few parameters; the same every time."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 5)).eval()


def _weights(suffix: str) -> Callable[[], Attempt]:
    """Weights, read, and fitted to the network that they are of."""

    def prepare() -> Attempt:
        from edgecnn.sources.weights import fit_weights, read_weights
        from tests.fuzz.worker import no_program_starts

        network = small_network()

        def attempt(content: bytes, folder: Path) -> None:
            path = folder / f"weights{suffix}"
            path.write_bytes(content)
            with no_program_starts():
                fit_weights(network, read_weights(path), origin=str(path))

        return attempt

    return prepare


def _program() -> Attempt:
    """A .pt2, loaded as `convert` does."""
    from edgecnn.sources.load import load_model
    from tests.fuzz.worker import no_program_starts

    def attempt(content: bytes, folder: Path) -> None:
        path = folder / "net.pt2"
        path.write_bytes(content)
        with no_program_starts():
            load(path)

    def load(path: Path) -> None:
        load_model(str(path), task="classify", labels=list("abcde"))

    load(SEEDS / "pt2" / "net.pt2")  # torch looks for libraries the first time, with a program
    return attempt


TARGETS = (
    Target(name="pth", title="weights: .pth", prepare=_weights(".pth"), needs=("torch",), words=_PICKLE_WORDS),
    Target(
        name="safetensors",
        title="weights: .safetensors",
        prepare=_weights(".safetensors"),
        needs=("torch",),
        words=(b"F32", b"[0,8]"),
    ),
    Target(
        name="pt2", title="an exported program: .pt2", prepare=_program, words=_GRAPH_WORDS, heavy=True, guided=False
    ),
)
