"""A service: what a camera sees now, and what is on a picture that is sent: python service.py SOURCE PORT."""

import sys
from typing import Annotated, Any

import cv2
import numpy as np
import uvicorn
from fastapi import Body, FastAPI, HTTPException

import edgecnn

app = FastAPI()


@app.get("/now")
def now() -> dict[str, Any]:
    try:
        newest = loop.newest()
    except edgecnn.EdgeCnnError as failed:
        raise HTTPException(503, str(failed)) from failed
    if newest is None:
        raise HTTPException(503, "no frame yet")
    return {"frame": newest[0].index, "age_ms": newest[0].age_ns / 1e6, **newest[1].to_dict()}


@app.post("/detect")
def detect(picture: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) if picture else None
    if image is None:
        raise HTTPException(400, "the body is not a picture")
    return runner(image).to_dict()  # calls wait for each other, and for the loop


if __name__ == "__main__":
    with edgecnn.open_camera(sys.argv[1]) as camera, edgecnn.open_runner("default-detector") as runner:
        with edgecnn.start_live(camera, runner) as loop:
            uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
