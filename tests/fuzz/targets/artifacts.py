"""Artifacts of each format: tried in the verifier's child, then opened and run here, as the product does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.target import SEEDS, Attempt, Target


def _artifact(format_name: str, mutated: str, beside: str = "") -> Callable[[], Attempt]:
    """A file of a format; `beside` is the suffix of the one that belongs to it, which is as it was written."""

    def prepare() -> Attempt:
        import numpy as np

        from edgecnn.bundle import Bundle, TensorSpec
        from edgecnn.bundle.companions import companions_of
        from edgecnn.bundle.shipped import ASSETS
        from edgecnn.formats import FORMATS
        from edgecnn.formats.devices import parse_device
        from edgecnn.runners.backend import open_backend
        from edgecnn.runners.verifier import Opening, Verifier

        main = FORMATS.get(format_name).suffixes[0]
        other = (SEEDS / f"{format_name}{beside.replace('.', '-')}" / f"net{beside}").read_bytes() if beside else b""
        if format_name == "ncnn":
            shape: tuple[int, ...] = (1, 64, 64, 3)
            outputs: list[TensorSpec] = [TensorSpec(name="scores", dtype="float32", shape=(1, 5))]
        else:
            manifest = Bundle.open(ASSETS / "probe.edge").manifest
            shape = (1, manifest.frame.height_px, manifest.frame.width_px, 3)
            outputs = list(manifest.outputs)
        frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        verifier = Verifier()

        def attempt(content: bytes, folder: Path) -> None:
            (folder / f"net{mutated}").write_bytes(content)
            if beside:
                (folder / f"net{beside}").write_bytes(other)
            path = folder / f"net{main}"
            companions_of(path)
            verifier.check(
                Opening(
                    path=path,
                    sha256=[hashlib.sha256(content).hexdigest()],
                    format=format_name,
                    outputs=outputs,
                    device=parse_device("cpu"),
                    precision="fp32",
                    threads=1,
                    frame_shape=shape,
                )
            )
            backend = open_backend(format_name, path, outputs=outputs, threads=1)
            try:
                backend.infer(frame)
            finally:
                backend.close()

        return attempt

    return prepare


_XML_WORDS = (
    b"<layer ",
    b"</layer>",
    b'type="Const"',
    b'size="',
    b'offset="',
    b'shape="1,3"',
    b"-1",
    b'element_type="f32"',
)
_PARAM_WORDS = (b"Convolution", b"Input", b"-23330=", b" 0=", b" 1=", b"Reshape", b"Split", b"7767517")

TARGETS = (
    Target(name="onnx", title="an ONNX file", prepare=_artifact("onnx", ".onnx"), heavy=True, guided=False),
    Target(
        name="openvino-xml",
        title="an OpenVINO .xml",
        prepare=_artifact("openvino", ".xml", ".bin"),
        words=_XML_WORDS,
        heavy=True,
        guided=False,
    ),
    Target(
        name="openvino-bin",
        title="an OpenVINO .bin",
        prepare=_artifact("openvino", ".bin", ".xml"),
        heavy=True,
        guided=False,
    ),
    Target(name="tflite", title="a TFLite file", prepare=_artifact("tflite", ".tflite"), heavy=True, guided=False),
    Target(
        name="ncnn-param",
        title="an ncnn .param",
        prepare=_artifact("ncnn", ".param", ".bin"),
        words=_PARAM_WORDS,
        heavy=True,
        guided=False,
    ),
    Target(
        name="ncnn-bin", title="an ncnn .bin", prepare=_artifact("ncnn", ".bin", ".param"), heavy=True, guided=False
    ),
)
