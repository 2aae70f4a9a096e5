"""Write `seeds/`: small real files of each kind, all made here. `python -m tests.fuzz.make_seeds`."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from tests.fuzz.target import SEEDS


def main() -> None:
    """Write them all anew."""
    shutil.rmtree(SEEDS, ignore_errors=True)
    for make in (documents, pictures, labels, artifacts, networks, streams, machines, signatures, found_before):
        for name, content in make().items():
            path = SEEDS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def documents() -> dict[str, bytes]:
    """Manifests, descriptions, recipes, devices, options: what ships with edgecnn, and files as users write them."""
    from edgecnn.bundle.shipped import ASSETS

    root = Path(__file__).parents[2]
    found = {"manifest/probe.json": (ASSETS / "probe.edge/manifest.json").read_bytes()}
    found["model/detector.json"] = (ASSETS / "detector.model/model.json").read_bytes()
    for path in sorted((root / "benchmarks/recipes").glob("*.toml"))[:3]:
        found[f"recipe/{path.name}"] = path.read_bytes()
    for name in ("qualcomm-htp", "raspberry-pi-5", "edge-tpu"):
        found[f"device/{name}.toml"] = (root / f"edgecnn/targets/{name}.toml").read_bytes()
    found["config/run.toml"] = (
        b'bundle = "street.edge"\ncamera = ["rtsp://camera-1/stream", "0"]\nscore = 0.4\ntrack = true\n'
        b'jsonl = "seen.jsonl"\nrecord = "out.mp4"\nweb = true\nthreads = 2\n'
    )
    return found


def pictures() -> dict[str, bytes]:
    """One of each format, and of each kind of sample."""
    y, x = np.mgrid[0:40, 0:64].astype(np.uint8)
    colour = np.dstack([x * 3, y * 5, x + y]).astype(np.uint8)
    found = {}
    for suffix in ("jpg", "png", "webp", "bmp", "tiff", "ppm", "pgm", "jp2", "avif"):
        picture = colour[..., 0] if suffix == "pgm" else colour
        if cv2.haveImageWriter(f".{suffix}"):
            found[f"picture/colour.{suffix}"] = cv2.imencode(f".{suffix}", picture)[1].tobytes()
    ids = (x // 8 % 3).astype(np.uint8)
    found["mask/ids.png"] = found["picture/grey.png"] = cv2.imencode(".png", ids)[1].tobytes()
    found["mask/ids16.png"] = cv2.imencode(".png", ids.astype(np.uint16) * 300)[1].tobytes()
    found["mask/one-bit.png"] = cv2.imencode(".png", (ids > 0) * np.uint8(255), [cv2.IMWRITE_PNG_BILEVEL, 1])[
        1
    ].tobytes()
    found["mask/ids.bmp"] = cv2.imencode(".bmp", ids)[1].tobytes()
    found["mask/ids.tiff"] = cv2.imencode(".tiff", ids)[1].tobytes()
    found["mask/ids.pgm"] = cv2.imencode(".pgm", ids)[1].tobytes()
    found["mask/palette.png"] = palette_png(ids)
    return found


def picture_of(suffix: str) -> bytes:
    """A small picture of colours."""
    y, x = np.mgrid[0:40, 0:64].astype(np.uint8)
    return bytes(cv2.imencode(f".{suffix}", np.dstack([x * 3, y * 5, x + y]).astype(np.uint8))[1].tobytes())


def labels() -> dict[str, bytes]:
    """A small data set's labels in each form; its pictures have 64x40 px."""
    boxes = [(1, [4.0, 5.0, 20.0, 18.0]), (2, [30.0, 2.0, 25.0, 30.0])]
    annotations = [
        {
            "id": number,
            "image_id": 7 + number % 2,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3]]],
        }
        for number, (category, box) in enumerate(boxes)
    ]
    runs = {"size": [40, 64], "counts": [100, 200, 40 * 64 - 300]}
    annotations.append({**annotations[0], "id": 9, "iscrowd": 1, "segmentation": runs})
    coco = {
        "info": {"year": 2026},
        "images": [{"id": 7 + n, "file_name": f"{name}.png", "width": 64, "height": 40} for n, name in enumerate("ab")],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "green", "supercategory": "colour"}],
    }
    packed = {**coco, "annotations": [{**annotations[0], "segmentation": {"size": [40, 64], "counts": "PPo0"}}]}
    voc = (
        "<annotation><filename>a.png</filename><size><width>64</width><height>40</height><depth>3</depth></size>"
        + "".join(
            f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{x + 20}</xmax><ymax>{y + 15}</ymax></bndbox></object>"
            for name, hard, x, y in (("red", 0, 3, 4), ("green", 1, 30, 10))
        )
        + "</annotation>"
    )
    ids = np.kron(np.arange(6).reshape(2, 3) % 3, np.ones((20, 22)))[:, :64].astype(np.uint8)
    return {
        "coco/boxes.json": json.dumps(coco).encode(),
        "coco/packed.json": json.dumps(packed).encode(),
        "yolo/boxes.txt": b"0 0.5 0.5 0.25 0.25\n2 0.2 0.3 0.1 0.2\n1 0.7 0.7 0.2 0.2\n",
        "yolo/polygons.txt": b"0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n1 0.6 0.6 0.9 0.6 0.9 0.9\n",
        "yolo/pose.txt": b"0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 2\n",
        "data-yaml/ultralytics.yaml": b"path: .\ntrain: images\nval: val/images\nnc: 3\n"
        b"names:\n  0: red\n  1: green\n  2: blue\n",
        "data-yaml/roboflow.yaml": b"train: ../images\nval: ../val/images\n"
        b"names: ['red', 'green', \"bl\\u00fce\"]\nroboflow:\n  license: x\n",
        "data-yaml/pose.yaml": b"train: images\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\n"
        b"names: &n [red, green, blue]\nagain: *n\n",
        "voc/objects.xml": voc.encode(),
        "voc-list/val.txt": b"a\n",
        "voc-list/with-second-column.txt": b"a  1\n",
        "class-map/ids.png": cv2.imencode(".png", ids)[1].tobytes(),
        "class-map/ids16.png": cv2.imencode(".png", ids.astype(np.uint16))[1].tobytes(),
        "class-map/palette.png": palette_png(ids),
        "label-map/labelmap.txt": b"# label:color_rgb:parts:actions\nred:0,0,0::\ngreen:1,1,1::\nblue:2,2,2::\n",
        "class-names/classes.txt": b"red\ngreen\nblue\n",
        "class-names/crlf.txt": b"\xef\xbb\xbfred\r\ngreen apple\r\n\xd0\xb4\xd0\xb2\r\n",
        "folders/colours.txt": b"red\ngreen\nblue\n",
    }


def artifacts() -> dict[str, bytes]:
    """The network that ships for trying devices, and a tiny one for ncnn."""
    from edgecnn import convert
    from edgecnn.bundle import Bundle
    from edgecnn.bundle.shipped import ASSETS
    from tests.builders.networks import tiny_classifier

    found: dict[str, bytes] = {}
    bundle = Bundle.open(ASSETS / "probe.edge")
    for artifact in bundle.manifest.artifacts:
        if artifact.precision == "fp32":
            for record in artifact.files:
                suffix = Path(record.path).suffix
                name = artifact.format + (suffix.replace(".", "-") if artifact.format == "openvino" else "")
                found[f"{name}/net{suffix}"] = (bundle.folder / record.path).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        made = convert(tiny_classifier(), to=["ncnn"], out=Path(folder) / "net.edge").bundle
        assert made is not None
        for record in made.manifest.artifacts[0].files:
            suffix = Path(record.path).suffix
            found[f"ncnn{suffix.replace('.', '-')}/net{suffix}"] = (made.folder / record.path).read_bytes()
    return found


def networks() -> dict[str, bytes]:
    """A small classifier's weights, in each form, and its program."""
    import torch
    from safetensors.torch import save

    from tests.fuzz.targets.networks import small_network

    network = small_network()
    state = network.state_dict()
    found = {"safetensors/net.safetensors": save(state)}

    def saved(value: object, **words: bool) -> bytes:
        content = io.BytesIO()
        torch.save(value, content, **words)
        return content.getvalue()

    found["pth/net.pth"] = saved(state)
    found["pth/old.pth"] = saved(state, _use_new_zipfile_serialization=False)
    prefixed = {f"module.{name}": value for name, value in state.items()}
    found["pth/checkpoint.pth"] = saved({"state_dict": prefixed, "epoch": 3, "best_acc1": torch.tensor(0.5)})
    program = torch.export.export(network, (torch.zeros(1, 3, 64, 64),))
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, Path(folder) / "net.pt2")
        found["pt2/net.pt2"] = _without_metadata(Path(folder) / "net.pt2")
    return found


def _without_metadata(program: Path) -> bytes:
    """A .pt2 without what names files of this machine."""

    def emptied(value: object) -> object:
        if isinstance(value, dict):
            return {name: {} if name == "metadata" else emptied(one) for name, one in value.items()}
        return [emptied(one) for one in value] if isinstance(value, list) else value

    written = io.BytesIO()
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(written, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if "/models/" in name:
                content = json.dumps(emptied(json.loads(content))).encode()
            copy.writestr(zipfile.ZipInfo(name), b"" if "sample_inputs" in name else content)
    return written.getvalue()


def streams() -> dict[str, bytes]:
    """An MJPEG server's answers, and short videos."""
    jpeg = picture_of("jpg")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"
    found = {"mjpeg/with-lengths.http": head + 6 * part}
    bare = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n"
    found["mjpeg/without-lengths.http"] = head + 6 * bare
    found["mjpeg/refused.http"] = (
        b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
    )
    login = b'RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Digest realm="x", nonce="y"\r\n'
    found["rtsp/login.rtsp"] = login + b'WWW-Authenticate: Basic realm="x"\r\n\r\n'
    words = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    head = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(words)
    public = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n"
    found["rtsp/described.rtsp"] = public + head + words
    with tempfile.TemporaryDirectory() as folder:
        for name, code in (("mpeg4.mp4", "mp4v"), ("mjpg.avi", "MJPG")):
            file = Path(folder) / name
            writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*code), 10, (64, 48))
            for index in range(6):
                writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
            writer.release()
            found[f"video/{name}"] = file.read_bytes()
    return found


def machines() -> dict[str, bytes]:
    """What boards, children, browsers and brokers say."""
    found = _board_answers()
    answer = json.dumps({"answer": {"seconds": 1.5}}).encode()
    fault = json.dumps({"fault": {"kind": "DeviceError", "reason": "no", "exit_code": 3, "crash": ""}}).encode()
    for name, text in (("answer", answer), ("fault", fault)):
        found[f"child/{name}.bin"] = b"noise\n\x00\xffedgeCNN" + struct.pack(">I", len(text)) + text
    token = b"Host: localhost\r\nAuthorization: Bearer fuzzing\r\n"
    for name, first in (("page", b"/"), ("status", b"/status?since=3"), ("picture", b"/picture?after=0&source=0")):
        found[f"page/{name}.http"] = b"GET " + first + b" HTTP/1.1\r\n" + token + b"\r\n"
    body = b'{"score": 0.5}'
    length = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    found["page/score.http"] = b"POST /score HTTP/1.1\r\n" + token + length + body
    form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 13\r\n\r\ntoken=fuzzing"
    found["page/login.http"] = b"POST /login HTTP/1.1\r\nHost: localhost\r\n" + form
    found["metrics/get.http"] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n"
    found["broker/accepted.mqtt"] = b"\x20\x02\x00\x00\x40\x02\x00\x01"
    found["broker/refused.mqtt"] = b"\x20\x02\x00\x05"
    found["broker/publish.mqtt"] = b"\x20\x02\x00\x00\x30\x08\x00\x04test\x68\x69"
    for index, address in enumerate(
        (
            "rtsp://user:secret@192.168.1.20:554/stream?channel=1&password=x",
            "http://[fe80::1%25eth0]:8080/video.mjpeg",
            "mqtt://user:p%40ss@broker:1883/house/camera",
            "mqtts://broker",
            "ssh://pi@raspberrypi.local:2222",
        )
    ):
        found[f"address/{index}.txt"] = address.encode()
    return found


def _board_answers() -> dict[str, bytes]:
    """A board's answers to `devices --on` and `bench --on`, with reports as this machine gives them."""
    from importlib.metadata import distributions

    from edgecnn.bundle import Bundle
    from edgecnn.bundle.shipped import ASSETS
    from edgecnn.flow.boards import artifacts_to_send
    from edgecnn.runners.remote.packages import needed
    from edgecnn.runners.remote.parcel import bundle_items

    names = {str(one.name).lower().replace("_", "-"): one.version for one in distributions() if one.name}
    wanted = needed(("onnx", "openvino", "tflite", "ncnn"))
    packages = {name: version for name, version in names.items() if any(name in str(one).lower() for one in wanted)}
    hello: dict[str, object] = {
        "board": "Raspberry Pi 5 Model B",
        "host": "pi",
        "platform": "linux-x86_64",
        "python": "3.11.7",
        "executable": "/usr/bin/python3",
        "libc": "glibc 2.36",
        "packages": packages,
        "environments": {"env-0123456789ab-0123456789ab": {"numpy": "2.0.0"}},
        "edgecnns": ["edgecnn-OWNBRIEF"],
    }
    bundle = Bundle.open(ASSETS / "probe.edge")
    chosen = artifacts_to_send(bundle, device="cpu", format="onnx", precision=None)
    offsets = {item.sha256: item.size for item in bundle_items(bundle, chosen, folder="bundle") if item.sha256}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        common = [sys.executable, "-m", "edgecnn"]
        devices = subprocess.run([*common, "devices", "cpu", "--json"], capture_output=True, check=True).stdout
        bench = ["bench", str(bundle.folder), "--format", "onnx", "--iterations", "3", "--no-record"]
        subprocess.run([*common, *bench, "--report", str(report)], capture_output=True, check=True)
        bench_report = report.read_bytes()
    for what, printed, reported in (("devices", devices, None), ("bench", b"", bench_report)):
        offered = offsets if what == "bench" else {}
        answers: list[tuple[dict[str, object], bytes]] = [(hello, b""), ({}, b""), ({"offsets": offered}, b"")]
        answers += [({}, b"")] * len(offered if what == "bench" else {})  # keep
        answers += [({}, b""), ({"path": "/there/env"}, b""), ({"path": "/there/edgecnn"}, b""), ({}, b""), ({}, b"")]
        answers += [({"code": None}, b""), ({"code": 0}, b""), ({}, printed), ({}, b"a note\n")]
        answers += [({}, reported)] if reported is not None else []
        answers += [({}, b"")]
        lines = [json.dumps({**said, "bytes": len(content)}).encode() + b"\n" + content for said, content in answers]
        found[f"board/{what}.txt"] = what.encode() + b"\n" + b"".join(lines)
    return found


def signatures() -> dict[str, bytes]:
    """Signatures of the network that ships for trying devices, by a key and by a certificate; keys to trust."""
    from edgecnn import sign
    from edgecnn.bundle.shipped import ASSETS
    from tests.builders.signed import authority, key_pair

    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder, keys = Path(place), key_pair(Path(place))
        certified = authority(folder)
        found["key/signer.pub"] = keys.public.read_bytes()
        found["key/root.crt"] = certified.root.read_bytes()
        for name, words in (
            ("key", {"key": keys.private}),
            ("chain", {"key": certified.key, "certificate": certified.chain}),
        ):
            bundle = shutil.copytree(ASSETS / "probe.edge", folder / f"{name}.edge")
            sign(bundle, **words)  # type: ignore[arg-type]
            found[f"signature/{name}.sig"] = (bundle / "model.sig").read_bytes()
    return found


def found_before() -> dict[str, bytes]:
    """Inputs that were a fault once, as small as they can be."""
    y, x = np.mgrid[0:8, 0:8].astype(np.uint8)
    bmp = bytearray(cv2.imencode(".bmp", x + y)[1].tobytes())
    bmp[14:18] = struct.pack("<I", 1 << 20)
    words = b"[1]"
    refused = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: \xff realm=x\r\nContent-Length: 0\r\n\r\n"
    rtsp = b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Digest realm=, nonce\r\n\r\n"
    coco = {"images": [{"id": "NaN", "file_name": "a.png"}], "annotations": [], "categories": []}
    return {
        "coco/found-id.json": json.dumps(coco).encode(),
        "mask/found-short.tiff": b"II*\0",
        "mask/found-header.bmp": bytes(bmp),
        "model/found-no-text.json": b'{"schema": 1, "name": "\xff"}',
        "recipe/found-deep.toml": b"model = " + b"[" * 5000,
        "child/found-no-answer.bin": b"\x00\xffedgeCNN" + struct.pack(">I", len(words)) + words,
        "mjpeg/found-unknown-login.http": refused,
        "rtsp/found-unknown-login.rtsp": rtsp,
    }


def palette_png(ids: np.ndarray) -> bytes:
    """A PNG with a palette, whose indices these are: OpenCV writes none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = ids.shape
    rows = b"".join(b"\0" + row.tobytes() for row in ids)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = bytes(range(9))
    parts = [chunk(b"IHDR", head), chunk(b"PLTE", palette), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


if __name__ == "__main__":
    main()
