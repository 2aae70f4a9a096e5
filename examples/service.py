"""A service: what a camera sees now, and what is on a picture that is sent: python service.py SOURCE PORT."""

import sys
from typing import Annotated, Any

import cv2
import numpy as np
import uvicorn
from fastapi import Body, FastAPI, HTTPException

import edgecnn

app = FastAPI()


def as_json(detections: edgecnn.Detections) -> list[dict[str, Any]]:
    """Plain numbers and words."""
    return [{"label": name, "score": float(score), "box": box.tolist()} for box, score, name in detections]


@app.get("/now")
def now() -> dict[str, Any]:
    if (newest := loop.newest()) is None:
        raise HTTPException(503, "no frame yet")
    return {"frame": newest[0].index, "age_ms": newest[0].age_ns / 1e6, "detections": as_json(newest[1])}


@app.post("/detect")
def detect(picture: Annotated[bytes, Body(media_type="image/jpeg")]) -> list[dict[str, Any]]:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) if picture else None
    if image is None:
        raise HTTPException(400, "the body is not a picture")
    return as_json(runner(image))  # calls wait for each other, and for the loop


if __name__ == "__main__":
    with edgecnn.open_camera(sys.argv[1]) as camera, edgecnn.open_runner("default-detector") as runner:
        with edgecnn.start_live(camera, runner) as loop:
            uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
