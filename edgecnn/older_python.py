"""What Python 3.10 lacks: ROS 2 Humble and JetPack 6 run it, and so must everything that a device needs."""

from __future__ import annotations

import hashlib
import sys
from datetime import datetime
from typing import BinaryIO

if sys.version_info >= (3, 11):
    import tomllib
    from asyncio import timeout
else:
    import asyncio
    import contextlib
    from collections.abc import AsyncGenerator

    import tomli as tomllib

    @contextlib.asynccontextmanager
    async def timeout(delay_s: float) -> AsyncGenerator[None, None]:
        """As `asyncio.timeout` of Python 3.11: TimeoutError where the block takes longer."""
        task, late = asyncio.current_task(), False

        def expire() -> None:
            nonlocal late
            late = True
            if task is not None:
                task.cancel()

        timer = asyncio.get_running_loop().call_later(delay_s, expire)
        try:
            yield
        except asyncio.CancelledError:
            if late:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()


__all__ = ["moment_of", "sha256_of_open", "timeout", "tomllib"]

_CHUNK = 1 << 20


def moment_of(text: str) -> datetime:
    """A moment in ISO 8601, which may end with Z: Python 3.10 doesn't read that.

    Raises:
        ValueError: it is no moment.
    """
    return datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text)


def sha256_of_open(file: BinaryIO) -> str:
    """SHA-256 of the rest of an open file, hexadecimal; `hashlib.file_digest` is of Python 3.11."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
