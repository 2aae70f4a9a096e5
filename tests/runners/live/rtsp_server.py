"""An RTSP server whose every picture says when it was made; runs until it is killed.

    /usr/bin/python3 tests/runners/live/rtsp_server.py --size 640x480     # prints its address when it accepts

For the system's own Python, with GStreamer's server (Debian: gir1.2-gst-rtsp-server-1.0).
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import gi

for name in ("Gst", "GstRtsp", "GstRtspServer"):
    gi.require_version(name, "1.0")
from bar_code import grey_picture  # type: ignore[import-not-found] # noqa: E402 - beside this file
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

ENCODERS = {
    "h264": "videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast "
    "key-int-max={key_interval} bitrate=4000 threads=1 sliced-threads=false ! "
    "rtph264pay name=pay0 pt=96 config-interval=-1",
    "jpeg": "videoconvert ! video/x-raw,format=I420 ! jpegenc quality=90 ! rtpjpegpay name=pay0 pt=26",
}
TRANSPORTS = {
    "tcp": GstRtsp.RTSPLowerTrans.TCP,
    "udp": GstRtsp.RTSPLowerTrans.UDP,
    "both": GstRtsp.RTSPLowerTrans.TCP | GstRtsp.RTSPLowerTrans.UDP,
}


class ClockFactory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """A stream for each who watches: one that all share is refused (503) while its last reader is still leaving."""

    def __init__(self, asked: argparse.Namespace) -> None:
        super().__init__()
        self._fps, self._lose_every = asked.fps, asked.lose_every
        self._width_px, self._height_px = map(int, asked.size.split("x"))
        caps = f"video/x-raw,format=GRAY8,width={self._width_px},height={self._height_px},framerate={asked.fps}/1"
        source = f'appsrc name=clock is-live=true format=time do-timestamp=true caps="{caps}"'
        encoder = ENCODERS[asked.codec].format(key_interval=asked.key_interval)
        self.set_launch(f"( {source} ! {encoder} )")
        self.set_shared(False)
        self.set_protocols(TRANSPORTS[asked.transport])
        self.connect("media-configure", self._configure)

    def _configure(self, _factory: Any, media: Any) -> None:
        appsrc = media.get_element().get_by_name("clock")
        if self._lose_every:
            payloader = media.get_element().get_by_name("pay0")
            kinds = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
            payloader.get_static_pad("src").add_probe(kinds, self._lose, itertools.count(1))
        wanted, over = threading.Event(), threading.Event()
        appsrc.connect("need-data", lambda *_: wanted.set())
        media.connect("unprepared", lambda _: over.set())
        threading.Thread(target=self._draw, args=(appsrc, wanted, over), daemon=True).start()

    def _lose(self, _pad: Any, _info: Any, counted: Iterator[int]) -> Any:
        """Let every n-th packet (or run of packets) get lost, as a network does."""
        lost = next(counted) % self._lose_every == 0
        return Gst.PadProbeReturn.DROP if lost else Gst.PadProbeReturn.OK

    def _draw(self, appsrc: Any, wanted: threading.Event, over: threading.Event) -> None:
        """Push pictures for as long as somebody watches."""
        wanted.wait()
        start, index = time.monotonic(), 0
        while not over.wait(max(0.0, start + index / self._fps - time.monotonic())):
            picture = grey_picture(time.monotonic_ns(), self._width_px, self._height_px)
            appsrc.emit("push-buffer", Gst.Buffer.new_wrapped(picture))
            index += 1


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--key-interval", type=int, default=30, help="frames")
    parser.add_argument("--transport", choices=sorted(TRANSPORTS), default="both")
    parser.add_argument("--lose-every", type=int, default=0, help="this packet gets lost; 0: none")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=("basic", "digest"), default="digest")
    asked = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(str(asked.port))
    factory = ClockFactory(asked)
    if asked.user:
        _ask_for_login(server, factory, asked)
    server.get_mount_points().add_factory("/clock", factory)
    if not server.attach(None):
        raise SystemExit(f"port {asked.port} is taken")
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/clock", flush=True)  # noqa: T201
    GLib.MainLoop().run()


def _ask_for_login(server: Any, factory: Any, asked: argparse.Namespace) -> None:
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
    auth = GstRtspServer.RTSPAuth()
    if asked.auth == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(asked.user, asked.password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(asked.user, asked.password), token)
    server.set_auth(auth)


if __name__ == "__main__":
    main()
