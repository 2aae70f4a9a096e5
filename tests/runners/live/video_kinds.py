"""Video files of sixty kinds, made by the program ffmpeg: what recorders, phones and editors write."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SIZE, FPS, SECONDS = "160x120", 25, 1
FRAMES = FPS * SECONDS


@dataclass(frozen=True)
class Kind:
    """One file.

    Attributes:
        name: of the file, with its suffix.
        words: what makes it, after ffmpeg's input.
        source: ffmpeg's test picture.
        size: of the source.
        then: what is done with the file afterwards.
        quick: belongs to the few that every test run makes.
        whole: nothing is wrong with it, and it is a video.
    """

    name: str
    words: str
    source: str = "testsrc2"
    size: str = SIZE
    then: Callable[[Path], None] | None = None
    quick: bool = False
    whole: bool = True


def ffmpeg(*words: str) -> None:
    """Run it; CalledProcessError where it fails."""
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *words], check=True, capture_output=True, timeout=120)


def make(kind: Kind, folder: Path) -> Path:
    """Make one file."""
    path = folder / kind.name
    picture = f"{kind.source}=size={kind.size}:rate={FPS}:duration={SECONDS}"
    ffmpeg("-f", "lavfi", "-i", picture, *kind.words.split(), str(path))
    if kind.then is not None:
        kind.then(path)
    return path


def _cut(share: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return cut


def _scribbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(range(200)) * 2
    path.write_bytes(data)


def _followed_by(words: str) -> Callable[[Path], None]:
    """Append another video, as a recorder does that changes its settings."""

    def follow(path: Path) -> None:
        other = path.with_name(f"second-{path.name}")
        ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={SIZE}:rate={FPS}:duration={SECONDS}", *words.split(), str(other))
        path.write_bytes(path.read_bytes() + other.read_bytes())
        other.unlink()

    return follow


def _copied(before: str = "", after: str = "") -> Callable[[Path], None]:
    """Copy the packets into a new file of the same name."""

    def copy(path: Path) -> None:
        other = path.with_name(f"first-{path.name}")
        shutil.move(path, other)
        ffmpeg(*before.split(), "-i", str(other), "-c", "copy", *after.split(), str(path))
        other.unlink()

    return copy


def _turned(a: int, b: int, c: int, d: int) -> Callable[[Path], None]:
    """Write the display matrix into the track's header (ISO 14496-12, 8.3.2): older ffmpeg programs can't."""

    def turn(path: Path) -> None:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + 40
        for offset, value in ((0, a), (4, b), (12, c), (16, d)):
            data[at + offset : at + offset + 4] = (value << 16).to_bytes(4, "big", signed=True)
        path.write_bytes(data)

    return turn


def _with_cover(path: Path) -> None:
    cover, bare = path.with_name("cover.png"), path.with_name(f"bare-{path.name}")
    ffmpeg("-f", "lavfi", "-i", "color=red:size=400x400", "-frames:v", "1", str(cover))
    shutil.move(path, bare)
    words = ["-map", "0", "-map", "1", "-c", "copy", "-disposition:v:1", "attached_pic"]
    if path.suffix == ".mp3":
        words = ["-map", "0:a", "-map", "1:v", "-c", "copy", "-id3v2_version", "3"]
    ffmpeg("-i", str(bare), "-i", str(cover), *words, str(path))
    cover.unlink()
    bare.unlink()


_INTERLACED = "-flags +ilme+ildct"
_X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"
_UNEVEN = "-vf settb=1/1000,setpts=(N+0.3*mod(N\\,3))*40 -fps_mode passthrough -enc_time_base 0.001"
UNEVEN_S = tuple((n + 0.3 * (n % 3)) / FPS for n in range(FRAMES))
_SOUND = "-f lavfi -i sine=duration=1 -map 1:a"

KINDS = (
    # interlaced
    Kind("h264-tff.mp4", f"{_X264} {_INTERLACED} -x264-params tff=1", quick=True),
    Kind("h264-bff.mkv", f"{_X264} {_INTERLACED} -x264-params bff=1"),
    Kind("h264-interlaced.ts", f"{_X264} {_INTERLACED}"),
    Kind("h264-interlaced-422.mkv", f"-c:v libx264 -pix_fmt yuv422p {_INTERLACED}"),
    Kind("h264-interlaced-10bit.mp4", f"-c:v libx264 -pix_fmt yuv420p10le {_INTERLACED}"),
    Kind("mpeg2-interlaced.mpg", f"-c:v mpeg2video -q:v 3 {_INTERLACED}", quick=True),
    Kind("mpeg2-interlaced-422.ts", f"-c:v mpeg2video -pix_fmt yuv422p -q:v 3 {_INTERLACED} -alternate_scan 1"),
    Kind("mpeg4-interlaced.avi", f"-c:v mpeg4 -q:v 3 {_INTERLACED}", quick=True),
    Kind("mpeg4-interlaced.mp4", f"-c:v mpeg4 -q:v 3 {_INTERLACED}"),
    Kind("hevc-fields.mp4", "-c:v libx265 -x265-params interlace=tff:log-level=none"),
    Kind("dv.avi", "-c:v dvvideo -pix_fmt yuv420p -s 720x576"),
    Kind("dv-411.avi", "-vf setpts=N*1001/30000/TB,scale=720x480 -r 30000/1001 -c:v dvvideo -pix_fmt yuv411p"),
    Kind("prores-interlaced.mov", f"-c:v prores_ks -pix_fmt yuv422p10le {_INTERLACED}"),
    Kind("dnxhd-interlaced.mov", f"-c:v dnxhd -b:v 120M -s 1920x1080 -pix_fmt yuv422p {_INTERLACED} -frames:v 4"),
    Kind("ffv1-interlaced.mkv", "-vf setfield=tff -c:v ffv1 -pix_fmt yuv420p -field_order tt"),
    Kind("progressive-then-interlaced.ts", _X264, then=_followed_by(f"{_X264} {_INTERLACED}"), quick=True),
    # depth and colour
    Kind("h264-10bit.mp4", "-c:v libx264 -pix_fmt yuv420p10le", quick=True),
    Kind("h264-422.mp4", "-c:v libx264 -pix_fmt yuv422p"),
    Kind("h264-422-10bit.mp4", "-c:v libx264 -pix_fmt yuv422p10le"),
    Kind("h264-444.mp4", "-c:v libx264 -pix_fmt yuv444p"),
    Kind("h264-grey.mp4", "-c:v libx264 -pix_fmt gray"),
    Kind("h264-full-range.mp4", "-c:v libx264 -pix_fmt yuvj420p"),
    Kind("h264-bt709.mp4", f"-vf scale=out_color_matrix=bt709 {_X264} -colorspace bt709 -color_primaries bt709"),
    Kind("hevc-10bit.mp4", "-c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=none"),
    Kind("hevc-12bit-444.mkv", "-c:v libx265 -pix_fmt yuv444p12le -x265-params log-level=none"),
    Kind("vp9-10bit.webm", "-c:v libvpx-vp9 -pix_fmt yuv420p10le -profile:v 2 -cpu-used 8"),
    Kind("vp9-alpha.webm", "-c:v libvpx-vp9 -pix_fmt yuva420p -cpu-used 8"),
    Kind("vp8.webm", "-c:v libvpx -cpu-used 8"),
    Kind("prores.mov", "-c:v prores_ks -pix_fmt yuv422p10le"),
    Kind("ffv1-16bit-grey.mkv", "-c:v ffv1 -pix_fmt gray16le"),
    Kind("ffv1-bgra.mkv", "-c:v ffv1 -pix_fmt bgra"),
    Kind("raw-yuyv.avi", "-c:v rawvideo -pix_fmt yuyv422"),
    Kind("mjpeg.avi", "-c:v mjpeg -q:v 3", quick=True),
    Kind("wmv2.asf", "-c:v wmv2"),
    Kind("mpeg1.mpg", "-c:v mpeg1video"),
    Kind("animated.gif", "-loop 0"),
    # sizes
    Kind("odd-321x241.webm", "-c:v libvpx-vp9 -cpu-used 8 -pix_fmt yuv420p", size="321x241", quick=True),
    Kind("odd-161x121.mkv", "-c:v ffv1 -pix_fmt yuv420p", size="161x121"),
    Kind("odd-333x77-444.mp4", "-c:v libx264 -pix_fmt yuv444p", size="333x77"),
    Kind("odd-19x17.avi", "-c:v mjpeg -q:v 3", size="19x17"),
    Kind("not-square.mp4", f"-vf setsar=4/3 {_X264}"),
    # upright
    Kind("turned-90.mp4", _X264, then=_turned(0, 1, -1, 0), quick=True),
    Kind("turned-180.mp4", _X264, then=_turned(-1, 0, 0, -1)),
    Kind("turned-270.mov", _X264, then=_turned(0, -1, 1, 0)),
    Kind("mirrored.mp4", _X264, then=_turned(-1, 0, 0, 1)),
    # time
    Kind("edit-list.mp4", f"{_X264} -g 10", then=_copied("-ss 0.5"), quick=True),
    Kind("starts-late.mp4", _X264, then=_copied("-itsoffset 1.5")),
    Kind("uneven.mp4", f"{_UNEVEN} {_X264}", quick=True),
    Kind("uneven.mkv", f"{_UNEVEN} {_X264}"),
    Kind("no-times.h264", f"{_X264} -bf 0"),
    Kind("fragmented.mp4", f"{_X264} -g 5 -movflags frag_keyframe+empty_moov"),
    # broken
    Kind("truncated.mp4", f"{_X264} -movflags +faststart", then=_cut(0.6), quick=True, whole=False),
    Kind("truncated.mkv", _X264, then=_cut(0.6), whole=False),
    Kind("without-index.mp4", _X264, then=_cut(0.9), whole=False),
    Kind("scribbled.ts", f"{_X264} -b:v 600k", then=_scribbled, whole=False),
    Kind("scribbled.avi", "-c:v mpeg4 -q:v 4", then=_scribbled, whole=False),
    Kind("grows.ts", _X264, then=_followed_by(f"-s 320x240 {_X264}"), quick=True),
    # other streams
    Kind("sound.m4a", f"{_SOUND} -c:a aac", quick=True, whole=False),
    Kind("sound-and-cover.mp3", f"{_SOUND} -c:a libmp3lame", then=_with_cover, quick=True, whole=False),
    Kind("video-and-cover.mp4", _X264, then=_with_cover),
)
