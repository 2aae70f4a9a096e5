"""A thousand tamperings with a signed bundle, each to be refused: python -m benchmarks.tampering [--times 1000].

A copy of a bundle that ships with edgecnn is signed; each time one thing is done to it, chosen and placed at random:
bytes of a file changed, cut off, added or exchanged, a field of the manifest or of the signature edited, a file
removed, renamed, added, or replaced by a link, an older release or a signature by another key put in. Then
`edgecnn.open_runner` with the trusted key must refuse it; the whole bundle must open beforehand and afterwards.
`--program` asks the program `edgecnn verify` too, for a tenth of them. Results go to `results/tampering.json`; exit
code 1 where something was opened.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import edgecnn
from edgecnn.bundle.shipped import ASSETS
from edgecnn.errors import EdgeCnnError, SignatureError

RESULTS = Path(__file__).resolve().parent / "results" / "tampering.json"
SIGNATURE = "model.sig"
Tampering = Callable[[Path, random.Random, Path], str]


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A key and its public half, made by OpenSSL."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    for words in (
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)],
        ["ec", "-in", str(private), "-pubout", "-out", str(public)],
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return private, public


def any_file(bundle: Path, rng: random.Random) -> Path:
    """A file of the bundle, its manifest or its signature."""
    return rng.choice(sorted(path for path in bundle.iterdir() if path.is_file()))


def change_bytes(bundle: Path, rng: random.Random, old: Path) -> str:
    """Up to 8 bytes of a file become others."""
    file = any_file(bundle, rng)
    raw = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(raw))
        raw[place] = (raw[place] + rng.randint(1, 255)) % 256
    if bytes(raw) == file.read_bytes():
        raw[0] ^= 1
    file.write_bytes(raw)
    return file.name


def cut(bundle: Path, rng: random.Random, old: Path) -> str:
    """A file ends early."""
    file = any_file(bundle, rng)
    os.truncate(file, rng.randrange(file.stat().st_size))
    return file.name


def extend(bundle: Path, rng: random.Random, old: Path) -> str:
    """A file goes on."""
    file = any_file(bundle, rng)
    with file.open("ab") as end:
        end.write(rng.choice([b"\n", b" ", b"\0", rng.randbytes(rng.randint(1, 100))]))
    return file.name


def exchange(bundle: Path, rng: random.Random, old: Path) -> str:
    """A file has the content of another, or noise."""
    file, other = any_file(bundle, rng), any_file(bundle, rng)
    content = other.read_bytes() if other != file else rng.randbytes(rng.randint(0, 2000))
    file.write_bytes(content)
    return file.name


def fields(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container of a JSON document, with each of its keys."""
    for key, held in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(held, dict | list):
            yield from fields(held)


def edit(document: Any, rng: random.Random) -> None:
    """One field becomes another value, or goes."""
    holder, key = rng.choice(list(fields(document)))
    value = holder[key]
    if rng.random() < 0.2:
        del holder[key]
    elif isinstance(value, str):
        holder[key] = value[: rng.randrange(len(value) + 1)] + rng.choice("axz09_") + value
    elif isinstance(value, bool) or value is None:
        holder[key] = not value
    elif isinstance(value, int | float):
        holder[key] = value + rng.choice([1, -1, 1 << 20])
    else:
        holder[key] = [value]


def edit_manifest(bundle: Path, rng: random.Random, old: Path) -> str:
    """A field of the manifest, which stays well-formed JSON."""
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    edit(document, rng)
    path.write_text(json.dumps(document, indent=1))
    return path.name


def edit_signature(bundle: Path, rng: random.Random, old: Path) -> str:
    """A field of the signature, in its own form."""
    path = bundle / SIGNATURE
    document = json.loads(path.read_bytes())
    edit(document, rng)
    path.write_text(json.dumps(document, separators=(",", ":")))
    return path.name


def edit_signed(bundle: Path, rng: random.Random, old: Path) -> str:
    """A field of what was signed: a file's hash, the release, the day of expiry."""
    path = bundle / SIGNATURE
    document = json.loads(path.read_bytes())
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    edit(payload, rng)
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    path.write_text(json.dumps(document, separators=(",", ":")))
    return path.name


def remove(bundle: Path, rng: random.Random, old: Path) -> str:
    """A file is gone."""
    file = any_file(bundle, rng)
    file.unlink()
    return file.name


def rename(bundle: Path, rng: random.Random, old: Path) -> str:
    """A file has another name, or another's."""
    file = any_file(bundle, rng)
    file.rename(bundle / rng.choice([file.name.upper(), f"{file.name}.old", f"{file.name} "]))
    return file.name


def add(bundle: Path, rng: random.Random, old: Path) -> str:
    """A file more, or a folder, a pipe, a link."""
    name = rng.choice(["added.bin", ".hidden", "MANIFEST.json", "weights.data", "model.sig.old"])
    kind = rng.choice(["file", "folder", "pipe", "link"])
    if kind == "file":
        (bundle / name).write_bytes(rng.randbytes(rng.randint(0, 100)))
    elif kind == "folder":
        (bundle / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(bundle / name)
    else:
        (bundle / name).symlink_to(rng.choice(["/etc/passwd", "manifest.json", "nowhere", ".."]))
    return kind


def link(bundle: Path, rng: random.Random, old: Path) -> str:
    """A file is a link to the same bytes elsewhere."""
    file = any_file(bundle, rng)
    elsewhere = bundle.parent / "elsewhere"
    elsewhere.unlink(missing_ok=True)
    shutil.move(file, elsewhere)
    file.symlink_to(elsewhere)
    return file.name


def replay(bundle: Path, rng: random.Random, old: Path) -> str:
    """The older release, whole and well signed, in its place."""
    shutil.rmtree(bundle)
    shutil.copytree(old, bundle)
    return "all"


def old_signature(bundle: Path, rng: random.Random, old: Path) -> str:
    """The older release's signature beside the files of today."""
    shutil.copyfile(old / SIGNATURE, bundle / SIGNATURE)
    return SIGNATURE


def sign_by_another(bundle: Path, rng: random.Random, old: Path) -> str:
    """Signed anew, well, by a key that nobody trusts."""
    edgecnn.sign(bundle, key=old.parent / "other.pem")
    return SIGNATURE


TAMPERINGS: tuple[Tampering, ...] = (
    change_bytes,
    cut,
    extend,
    exchange,
    edit_manifest,
    edit_signature,
    edit_signed,
    remove,
    rename,
    add,
    link,
    replay,
    old_signature,
    sign_by_another,
)


def outcome(bundle: Path, key: Path) -> str:
    """What opening does: "opened", or the error's class."""
    try:
        edgecnn.open_runner(bundle, format="onnx", precision="fp32", trusted_keys=key).close()
    except EdgeCnnError as refused:
        return type(refused).__name__
    return "opened"


def main() -> int:
    """Tamper, count, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", action="store_true", help="ask `edgecnn verify` too, for a tenth of them")
    words = parser.parse_args()
    rng = random.Random(words.seed)
    counts: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {each.__name__: Counter() for each in TAMPERINGS}
    codes: Counter[int] = Counter()
    missed: list[str] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["EDGECNN_STATE"] = str(folder / "state")
        os.environ["EDGECNN_VERIFY"] = "0"
        (private, public), _ = keys(folder, "key"), keys(folder, "other")
        whole = shutil.copytree(ASSETS / "probe.edge", folder / "whole" / "street.edge")
        edgecnn.sign(whole, key=private)
        old = shutil.copytree(whole, folder / "old.edge")
        edgecnn.sign(whole, key=private, expires="2199-12-31")
        assert outcome(whole, public) == "opened"
        for number in range(words.times):
            bundle = folder / "street.edge"
            shutil.rmtree(bundle, ignore_errors=True)
            shutil.copytree(whole, bundle)
            tampering = TAMPERINGS[number % len(TAMPERINGS)]
            where = tampering(bundle, rng, old)
            found = outcome(bundle, public)
            counts[found] += 1
            by_kind[tampering.__name__][found] += 1
            if found == "opened":
                missed.append(f"{number}: {tampering.__name__} of {where}")
            if words.program and number % 10 == 0:
                command = [sys.executable, "-m", "edgecnn", "verify", str(bundle), "--key", str(public)]
                codes[subprocess.run(command, capture_output=True, check=False).returncode] += 1
        assert outcome(whole, public) == "opened"
    report = {
        "times": words.times,
        "seed": words.seed,
        "refused": words.times - counts["opened"],
        "outcomes": dict(counts),
        "by_kind": {name: dict(found) for name, found in by_kind.items()},
        "exit_codes_of_verify": {str(code): count for code, count in sorted(codes.items())},
        "missed": missed,
        "seconds": round(time.monotonic() - started, 1),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    only_signature_errors = set(counts) <= {SignatureError.__name__}
    return 0 if not missed and only_signature_errors and set(codes) <= {1} else 1


if __name__ == "__main__":
    sys.exit(main())
