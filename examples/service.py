"""A service: what a camera sees now, and what is on a picture that is sent: python service.py SOURCE [PORT]."""

import sys
from contextlib import ExitStack
from typing import Annotated, Any

import cv2
import numpy as np
import uvicorn
from fastapi import Body, FastAPI, HTTPException

import edgecnn


def as_json(detections: edgecnn.Detections) -> list[dict[str, Any]]:
    """Plain numbers and words."""
    return [{"label": name, "score": float(score), "box": box.tolist()} for box, score, name in detections]


def make_app(loop: edgecnn.LiveLoop, runner: edgecnn.Runner) -> FastAPI:
    """Routes over a loop that runs."""
    app = FastAPI()

    @app.get("/now")
    def now() -> dict[str, Any]:
        if (newest := loop.newest()) is None:
            raise HTTPException(503, "no frame yet")
        frame, found = newest
        return {"frame": frame.index, "age_ms": frame.age_ns / 1e6, "detections": as_json(found)}

    @app.post("/detect")
    def detect(picture: Annotated[bytes, Body(media_type="image/jpeg")]) -> list[dict[str, Any]]:
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) if picture else None
        if image is None:
            raise HTTPException(400, "the body is not a picture")
        return as_json(runner(image))  # calls wait for each other and for the loop

    return app


if __name__ == "__main__":
    with ExitStack() as stack:
        camera = stack.enter_context(edgecnn.open_camera(sys.argv[1]))
        runner = stack.enter_context(edgecnn.open_runner("default-detector"))
        loop = stack.enter_context(edgecnn.start_live(camera, runner))
        uvicorn.run(make_app(loop, runner), port=int(sys.argv[2]) if len(sys.argv) > 2 else 8000, log_level="warning")
