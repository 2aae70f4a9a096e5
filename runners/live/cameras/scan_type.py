"""Finds out from a video's own header whether its frames are interlaced, or may be.

Only the first bits of each header are read; a truncated or damaged header gives "may be".
"""

from __future__ import annotations

from typing import Final

# FFmpeg's four-character codes of codecs whose frames are always progressive.
PROGRESSIVE: Final = frozenset({"VP80", "vp08", "VP90", "vp09", "AV01", "av01", "MJPG", "mjpg", "jpeg", "gif"}) | {
    *("H263", "h263", "U263", "s263", "FLV1", "MP41", "MP42", "MP43", "DIV3", "DIV4", "WMV1", "WMV2", "wmv1", "wmv2")
}
_H264: Final = frozenset({"H264", "h264", "avc1", "avc3", "X264", "x264"})
_HEVC: Final = frozenset({"HEVC", "hevc", "hev1", "hvc1", "H265"})
_MPEG4: Final = frozenset({"mp4v", "FMP4", "MP4V", "XVID", "xvid", "DIVX", "divx", "DX50", "MPG4"})
_MPEG12: Final = frozenset({"mpg1", "mpg2", "MPG1", "MPG2", "PIM1", "mp1v", "mp2v"})
_START: Final = b"\x00\x00\x01"
_HIGH_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


def may_be_interlaced(codec: str, header: bytes) -> bool | None:
    """Whether a video is interlaced, according to its header.

    Args:
        codec: its four-character code.
        header: the codec header (FFmpeg's extradata).

    Returns:
        True or False; None where this codec's headers are not known here.
    """
    if codec in PROGRESSIVE:
        return False
    try:
        if codec in _H264:
            return any(not _frames_only(unit) for unit in _h264_parameter_sets(header))
        if codec in _HEVC:
            return _hevc_interlaced(header)
        if codec in _MPEG12:
            return _mpeg2_interlaced(header)
        if codec in _MPEG4:
            return _mpeg4_interlaced(header)
    except (IndexError, _CutOff):
        return True
    return None


def turns_interlaced(codec: str, packet: bytes) -> bool:
    """Whether a packet of a stream that began progressive has an interlaced header."""
    if codec in _H264:
        has_header = any(unit[0] & 31 == 7 for unit in packet.split(_START) if unit)
    elif codec in _HEVC:
        has_header = any(unit[0] >> 1 & 63 == 33 for unit in packet.split(_START) if unit)
    elif codec in _MPEG12:
        has_header = _START + b"\xb3" in packet
    elif codec in _MPEG4:
        has_header = any(0x20 <= unit[0] <= 0x2F for unit in packet.split(_START) if unit)
    else:
        has_header = False
    return has_header and bool(may_be_interlaced(codec, packet))


class _CutOff(Exception):
    """The header ends too early."""


class _Bits:
    """Reads bits, and H.264's variable-length numbers."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise _CutOff
        return self._value >> self._left & (1 << count) - 1

    def skip_if(self, *counts: int) -> None:
        """Read a flag, and skip the fields that follow if it is set."""
        if self.take(1):
            for count in counts:
                self.take(count)

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise _CutOff
        return (1 << zeros) - 1 + self.take(zeros)


def _h264_parameter_sets(header: bytes) -> list[bytes]:
    """The sequence parameter sets, from MP4's record (ISO 14496-15, 5.2.4) or from a raw stream."""
    if header[:1] == b"\x01":
        units, at = [], 6
        for _ in range(header[5] & 31):
            size = int.from_bytes(header[at : at + 2], "big")
            units.append(header[at + 2 : at + 2 + size])
            at += 2 + size
    else:
        units = [unit for unit in header.split(_START) if unit and unit[0] & 31 == 7]
    if not units:
        raise _CutOff
    return units


def _frames_only(unit: bytes) -> bool:
    """frame_mbs_only_flag of a sequence parameter set (H.264, 7.3.2.1.1)."""
    bits = _Bits(unit[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    bits.golomb()
    bits.golomb()
    return bool(bits.take(1))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + (code + 1 >> 1 if code & 1 else -(code >> 1)) + 256) % 256
        last = following or last


def _hevc_interlaced(header: bytes) -> bool:
    """general_interlaced_source_flag (H.265, 7.3.3), from MP4's record or from a sequence parameter set."""
    if header[:1] == b"\x01":
        return bool(header[6] & 0x40)
    units = [unit for unit in header.split(_START) if unit and unit[0] >> 1 & 63 == 33]
    if not units:
        raise _CutOff
    return any(bool(unit.replace(b"\x00\x00\x03", b"\x00\x00")[8] & 0x40) for unit in units)


def _mpeg2_interlaced(header: bytes) -> bool:
    """Not progressive_sequence (H.262, 6.2.2.3); MPEG-1 has no such extension."""
    extensions = [unit[1:] for unit in header.split(_START) if unit[:1] == b"\xb5" and unit[1] >> 4 == 1]
    if not extensions:
        return b"\xb5" in {unit[:1] for unit in header.split(_START)} or not header
    return not all(_Bits(unit).take(13) & 1 for unit in extensions)


def _mpeg4_interlaced(header: bytes) -> bool:
    """The interlaced flag of a video object layer (ISO 14496-2, 6.2.3)."""
    layers = [unit[1:] for unit in header.split(_START) if unit and 0x20 <= unit[0] <= 0x2F]
    if not layers:
        raise _CutOff
    return any(_layer_interlaced(_Bits(layer)) for layer in layers)


def _layer_interlaced(bits: _Bits) -> bool:
    bits.take(9)
    version = 1
    if bits.take(1):
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == 15:
        bits.take(16)
    if bits.take(1):
        bits.take(3)
        bits.skip_if(79)
    if bits.take(2) == 3 and version != 1:
        bits.take(4)
    bits.take(1)
    resolution = bits.take(16)
    bits.take(1)
    bits.skip_if(max((resolution - 1).bit_length(), 1))
    bits.take(1 + 13 + 1 + 13 + 1)
    return bool(bits.take(1))
