"""Turns towards people: control keeps its own rate, and what the camera saw too long ago counts for nothing.

python robot_loop.py [SOURCE]     0, rtsp://…, a file
"""

import sys
import time

import edgecnn

RATE_HZ, TOO_OLD_MS = 20, 200


def turn(detections: edgecnn.Detections, width_px: int) -> float:
    """From -1, left, to 1, right: where the largest person stands; 0 where there is none."""
    people = [box for box, _, label in detections if label == "person"]
    if not people:
        return 0.0
    left, _, right, _ = max(people, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    return float(left + right) / width_px - 1


if __name__ == "__main__":
    with (
        edgecnn.open_camera(sys.argv[1] if len(sys.argv) > 1 else 0) as camera,
        edgecnn.open_runner("default-detector") as runner,
        edgecnn.start_live(camera, runner) as loop,
    ):
        while not loop.ended:
            newest = loop.newest()  # at once; raises what ended the loop
            if newest is None or newest[0].age_ns > TOO_OLD_MS * 1e6:
                print("stand still: nothing fresh")
            else:
                frame, detections = newest
                print(f"turn {turn(detections, frame.image.shape[1]):+.2f}, seen {frame.age_ns / 1e6:.0f} ms ago")
            time.sleep(1 / RATE_HZ)
