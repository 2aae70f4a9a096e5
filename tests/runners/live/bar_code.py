"""A clock drawn into a picture as bars, so that a picture says when it was made, whatever codec it went through.

Three bands (top, middle, bottom) hold the same: milliseconds of CLOCK_MONOTONIC and a check sum. A picture that is half
another, or that a decoder made up, has none that is valid. Written without numpy, for the system's own Python.
"""

from __future__ import annotations

from typing import Any

_CLOCK_BITS, _CHECK_BITS = 40, 8
_BITS = _CLOCK_BITS + _CHECK_BITS
_DARK, _BRIGHT, _GROUND, _THRESHOLD = 24, 232, 96, 128


def grey_picture(now_ns: int, width_px: int, height_px: int) -> bytes:
    """A grey picture, uint8 [height, width], with the time in it."""
    now_ms = now_ns // 1_000_000
    code = now_ms << _CHECK_BITS | _check(now_ms)
    row = bytearray([_GROUND]) * width_px
    cell_px = width_px // _BITS
    for bit in range(_BITS):
        row[bit * cell_px : (bit + 1) * cell_px] = bytes([_BRIGHT if code >> bit & 1 else _DARK]) * cell_px
    blank = bytes([_GROUND]) * width_px
    band = height_px // 8
    gap = (height_px - 3 * band) // 2
    rows = (
        bytes(row) * band + blank * gap + bytes(row) * band + blank * (height_px - 3 * band - gap) + bytes(row) * band
    )
    assert len(rows) == width_px * height_px
    return rows


def read_ms(picture: Any) -> int | None:
    """The time in a picture, uint8 [height, width, 3], in ms of CLOCK_MONOTONIC; None where the bands don't hold it."""
    height_px, width_px = picture.shape[:2]
    band, cell_px = height_px // 8, width_px // _BITS
    gap = (height_px - 3 * band) // 2
    times = {_read_row(picture[top + band // 2, :, 1], cell_px) for top in (0, band + gap, height_px - band)}
    return times.pop() if len(times) == 1 else None


def _read_row(row: Any, cell_px: int) -> int | None:
    code = sum(int(row[bit * cell_px + cell_px // 2] > _THRESHOLD) << bit for bit in range(_BITS))
    now_ms = code >> _CHECK_BITS
    return now_ms if code & (1 << _CHECK_BITS) - 1 == _check(now_ms) else None


def _check(now_ms: int) -> int:
    """CRC-8 (polynomial 0x07), begun so that 0 has another one."""
    check = 0xA5
    for byte in now_ms.to_bytes(_CLOCK_BITS // 8, "big"):
        check ^= byte
        for _ in range(8):
            check = (check << 1 ^ 0x07 if check & 0x80 else check << 1) & 0xFF
    return check
