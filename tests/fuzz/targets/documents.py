"""Manifests, saved networks' descriptions, recipes, device targets and files of options."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.fuzz.target import SEEDS, Attempt, Target

_TOML_WORDS = (
    b" = ",
    b"[",
    b"[[",
    b"]",
    b'"""',
    b"true",
    b"1979-05-27T07:32:00Z",
    b"inf",
    b"{",
    b".",
    b"\n[a.b]\n",
    b"_",
)
_JSON_WORDS = (
    b":",
    b",",
    b"null",
    b"true",
    b'"',
    b"{}",
    b"[]",
    b"1e999",
    b"\\u0000",
    b"\\ud800",
    b"-0.0",
    b"\\u001b[31m",
)


def _manifest() -> Attempt:
    """A bundle's manifest, opened and shown, with the files of the bundle that it was changed from."""
    from edgecnn.bundle import MANIFEST
    from edgecnn.bundle.shipped import ASSETS
    from edgecnn.cli._verb import define

    verb = define("inspect")
    files = [path for path in (ASSETS / "probe.edge").iterdir() if path.name != MANIFEST]

    def attempt(content: bytes, folder: Path) -> None:
        (folder / MANIFEST).write_bytes(content)
        for path in files:
            (folder / path.name).symlink_to(path)
        verb.run({"bundle": folder})

    return attempt


def _signature() -> Attempt:
    """A bundle's signature, as it is shown, and as it is verified with keys that made none or all of it."""
    import shutil

    from edgecnn.bundle.envelope import SIGNATURE
    from edgecnn.bundle.keys import trusted_keys
    from edgecnn.bundle.shipped import ASSETS
    from edgecnn.bundle.signature import check_signed, described_claim, unverified
    from edgecnn.errors import SignatureError

    files = list((ASSETS / "probe.edge").iterdir())
    keys = trusted_keys([SEEDS / "key" / "signer.pub", SEEDS / "key" / "root.crt"])

    def attempt(content: bytes, folder: Path) -> None:
        for path in files:
            shutil.copyfile(path, folder / path.name)
        (folder / SIGNATURE).write_bytes(content)
        described_claim(folder)
        with contextlib.suppress(SignatureError):  # the bundle that was signed may have been another
            check_signed(folder, keys)
        unverified(folder)

    return attempt


def _key() -> Attempt:
    """A file of keys or certificates to trust."""
    from edgecnn.bundle.keys import trusted_keys

    def attempt(content: bytes, folder: Path) -> None:
        (folder / "key.pem").write_bytes(content)
        trusted_keys(folder / "key.pem")

    return attempt


def _description() -> Attempt:
    """A saved network's description, and the network that it has built."""
    from edgecnn.bundle.shipped import ASSETS
    from edgecnn.sources.load import load_model
    from edgecnn.sources.saved import DESCRIPTION

    weights = next((ASSETS / "detector.model").glob("*.safetensors"))

    def attempt(content: bytes, folder: Path) -> None:
        model = folder / "net.model"
        model.mkdir()
        (model / DESCRIPTION).write_bytes(content)
        (model / weights.name).symlink_to(weights)
        load_model(str(model))

    return attempt


def _recipe() -> Attempt:
    from edgecnn.flow.recipe_file import read_recipe

    def attempt(content: bytes, folder: Path) -> None:
        (folder / "recipe.toml").write_bytes(content)
        read_recipe(folder / "recipe.toml")

    return attempt


def _device() -> Attempt:
    """The words of a device's file, as `edgecnn.targets` reads them."""
    from edgecnn.options.toml import read_toml
    from edgecnn.targets import read_target

    def attempt(content: bytes, folder: Path) -> None:
        (folder / "board.toml").write_bytes(content)
        read_target(read_toml(folder / "board.toml", "a device"))

    return attempt


def _options() -> Attempt:
    """A `--config` file of `run`, the verb with most options."""
    from edgecnn.cli._verb import define
    from edgecnn.options.file import read_options

    settings = define("run").settings

    def attempt(content: bytes, folder: Path) -> None:
        (folder / "run.toml").write_bytes(content)
        read_options(folder / "run.toml", settings)

    return attempt


TARGETS = (
    Target(name="manifest", title="a bundle's manifest", prepare=_manifest, words=_JSON_WORDS),
    Target(name="signature", title="a bundle's signature", prepare=_signature, words=_JSON_WORDS),
    Target(name="key", title="keys and certificates", prepare=_key, words=(b"-----BEGIN ", b"PUBLIC KEY-----", b"=")),
    Target(name="model", title="a saved network's description", prepare=_description, words=_JSON_WORDS, heavy=True),
    Target(name="recipe", title="a recipe", prepare=_recipe, words=_TOML_WORDS),
    Target(name="device", title="a device's target file", prepare=_device, words=_TOML_WORDS),
    Target(name="config", title="a --config file", prepare=_options, words=_TOML_WORDS),
)
