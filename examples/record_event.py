"""Records what happens: a clip begins before somebody came into the picture, and ends after they left.

python record_event.py SOURCE LABEL FOLDER
"""

import sys
from collections import deque
from pathlib import Path

import cv2
import numpy as np

import edgecnn

PRE_ROLL, POST_ROLL, FPS = 20, 20, 20  # frames

if __name__ == "__main__":
    source, label, folder = sys.argv[1:]
    before: deque[np.ndarray] = deque(maxlen=PRE_ROLL)
    writer, quiet = None, 0
    with edgecnn.open_camera(source) as camera, edgecnn.open_runner("default-detector", score=0.6) as runner:
        for frame, detections in edgecnn.live(camera, runner):
            seen = any(name == label for _, _, name in detections)
            quiet = 0 if seen else quiet + 1
            if seen and writer is None:
                path = Path(folder) / f"{label}-{frame.captured_unix_ns // 10**6}.mp4"
                size = (frame.image.shape[1], frame.image.shape[0])
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
                for earlier in before:
                    writer.write(earlier)
                print(f"frame {frame.index}: {path.name} begins {len(before)} frames earlier", flush=True)
            before.append(frame.image)
            if writer is not None:
                writer.write(frame.image)
                if quiet >= POST_ROLL:
                    writer.release()
                    writer = None
