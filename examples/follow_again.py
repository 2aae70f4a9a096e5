"""Follows objects of a stream that breaks off and comes back: python follow_again.py URL [FRAMES]."""

import sys

import edgecnn


def main(url: str, frames: int) -> None:
    """Print who is there whenever that changes, and what happens to the stream."""
    states: list[str] = []
    reconnect = edgecnn.Reconnect(stall_s=2)
    printed: set[int] = set()
    with (
        edgecnn.open_camera(url, reconnect=reconnect, on_state=lambda state, _: states.append(state)) as camera,
        edgecnn.open_runner("default-detector") as runner,
    ):
        # Forgotten is who was not seen for so long: whoever is still there after a shorter gap keeps the id.
        tracker = edgecnn.Tracker(fps=camera.fps or 10, keep_lost_s=30)
        for seen, (frame, found) in enumerate(edgecnn.live(camera, runner), start=1):
            while states:
                print("stream:", states.pop(0), flush=True)
            followed = tracker(found, captured_ns=frame.captured_ns)
            ids = set(followed.track_ids.tolist()) - {-1}
            if ids != printed:
                print(f"frame {frame.index}: {sorted(ids)}", flush=True)
                printed = ids
            if seen >= frames:
                break


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else sys.maxsize)
