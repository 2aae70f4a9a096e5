"""Counts who goes through a door and who stands in a room: python count_people.py SOURCE."""

import sys

import edgecnn


def main(source: str) -> None:
    """Print the counts whenever they change."""
    with edgecnn.open_camera(source) as camera, edgecnn.open_runner("default-detector") as runner:
        tracker = edgecnn.Tracker(fps=camera.fps or 30)
        door = edgecnn.LineCounter((320, 0), (320, 480), name="door")
        room = edgecnn.ZoneCounter([(320, 0), (640, 0), (640, 480), (320, 480)], name="room")
        before = ""
        for frame, detections in edgecnn.live(camera, runner):
            people = detections.filter(labels="person")
            followed = tracker(people, captured_ns=frame.captured_ns if camera.live else None)
            counts = f"{door.update(followed)}; {room.update(followed)}"
            if counts != before:
                print(f"frame {frame.index}: {counts}", flush=True)
            before = counts


if __name__ == "__main__":
    main(sys.argv[1])
