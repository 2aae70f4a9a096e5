"""Makes a wheel of the running edgecnn, whether it is a checkout or was installed."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import edgecnn
from edgecnn._version import __version__
from edgecnn.errors import SpecError

_INFO = f"edgecnn-{__version__}.dist-info"
_DATE = (2020, 1, 1, 0, 0, 0)  # fixed, so that the same files give the same wheel
_WHEEL = "Wheel-Version: 1.0\nGenerator: edgecnn\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@lru_cache(maxsize=1)
def own_wheel() -> bytes:
    """The running package's files, in the form of PEP 427.

    An installed wheel no longer exists, and a checkout may have changed since it was installed; so the wheel is made
    from the package's files as they are, with the metadata of its installation.

    Raises:
        SpecError: edgecnn has no metadata here, because it was never installed.
    """
    package = Path(edgecnn.__file__).parent
    try:
        own = distribution("edgecnn")
    except PackageNotFoundError as missing:
        raise SpecError(f"edgecnn runs from {package} but is not installed: pip install --editable .") from missing
    contents = {}
    # The links to converters/ and runners/ in a checkout are folders of the package.
    for place, below, names in os.walk(package, followlinks=True):
        below[:] = sorted(name for name in below if name != "__pycache__")
        for name in names:
            path = Path(place) / name
            contents[f"edgecnn/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    metadata = own.read_text("METADATA") or f"Metadata-Version: 2.1\nName: edgecnn\nVersion: {__version__}\n"
    contents[f"{_INFO}/METADATA"] = metadata.encode()
    contents[f"{_INFO}/WHEEL"] = _WHEEL.encode()
    contents[f"{_INFO}/entry_points.txt"] = (own.read_text("entry_points.txt") or "").encode()
    record = "".join(f"{name},{_record_hash(content)},{len(content)}\n" for name, content in sorted(contents.items()))
    contents[f"{_INFO}/RECORD"] = f"{record}{_INFO}/RECORD,,\n".encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in contents.items():
            wheel.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def wheel_name() -> str:
    """The wheel's file name."""
    return f"edgecnn-{__version__}-py3-none-any.whl"


def _record_hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
