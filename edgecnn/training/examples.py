"""Training examples: augmented pictures and labels, fitted to the network's frame, reproducible by seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from edgecnn.datasets import BoxTruth, Dataset, LabelTruth, MapTruth, Truth
from edgecnn.frame import FrameFitter, FrameSpec, placement
from edgecnn.results import UInt8Array
from edgecnn.training.augment import Varied, vary_boxes, vary_colours, vary_map, vary_picture
from edgecnn.training.frame_truth import FrameBoxTruth, FrameLabelTruth, FrameMapTruth, FrameTruth
from edgecnn.training.mosaic import mosaic
from edgecnn.training.settings import Augmentation

Example: TypeAlias = tuple[Tensor, FrameTruth]  # uint8 [height, width, 3] BGR frame, and the expected answer

_SMALLEST_BOX_PX = 2.0  # in the frame; smaller boxes cannot be learned, and are remainders of cropped ones


class TrainingPictures(TorchDataset[Example]):
    """Frames and labels by (epoch, index): the same two numbers and seed always give the same frame.

    Args:
        pictures: opened for the network's task and labels.
        frame: the network's frame; pictures are fitted as on the device.
        augmentation: how they are varied.
        seed: seed of the augmentation.
        mosaic_until: the epoch from which on no mosaics are made.
    """

    def __init__(
        self, pictures: Dataset, frame: FrameSpec, augmentation: Augmentation, *, seed: int, mosaic_until: int
    ) -> None:
        self._pictures, self._frame, self._augmentation = pictures, frame, augmentation
        self._seed, self._mosaic_until = seed, mosaic_until

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, index = key
        rng = np.random.default_rng((self._seed, epoch, index))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            return self._example(epoch, index, rng)

    def _example(self, epoch: int, index: int, rng: np.random.Generator) -> Example:
        image, truth = self._read(index)
        if isinstance(truth, LabelTruth):
            varied = vary_picture(image, self._frame, self._augmentation)
            return _tensor(varied), FrameLabelTruth(truth.class_id)
        if isinstance(truth, MapTruth):
            varied, classes = vary_map(image, truth.classes, self._frame, self._augmentation)
            return _tensor(varied), FrameMapTruth(torch.from_numpy(classes))
        if epoch < self._mosaic_until and rng.random() < self._augmentation.mosaic:
            others = rng.integers(0, len(self), 3).tolist()
            four = [(image, truth), *(self._read(other) for other in others)]
            return self._boxes_example(mosaic([self._boxes(*one, zoom_out=False) for one in four], self._frame, rng))
        return self._boxes_example(self._fitted(self._boxes(image, truth, zoom_out=True)))

    def _read(self, index: int) -> tuple[UInt8Array, Truth]:
        sample = self._pictures[index]
        image = sample.image()
        return image, sample.truth(image)

    def _boxes(self, image: UInt8Array, truth: Truth, *, zoom_out: bool) -> Varied:
        assert isinstance(truth, BoxTruth)
        boxes, ids = truth.boxes_xyxy_px[~truth.ignored], truth.class_ids[~truth.ignored]
        return vary_boxes(image, boxes, ids, self._augmentation, zoom_out=zoom_out)

    def _fitted(self, varied: Varied) -> Varied:
        place = placement(self._frame, *varied.image.shape[:2])
        frame = FrameFitter(self._frame)(varied.image)[0][0]
        boxes = place.boxes_to_frame(varied.boxes_xyxy_px.astype(np.float32)).astype(np.float64)
        return Varied(frame, boxes, varied.class_ids)

    def _boxes_example(self, varied: Varied) -> Example:
        limit = (self._frame.width_px, self._frame.height_px) * 2
        boxes = np.clip(varied.boxes_xyxy_px, 0, limit)
        large = (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST_BOX_PX).all(axis=1)
        in_frame = FrameBoxTruth(
            boxes_xyxy_px=torch.from_numpy(boxes[large].astype(np.float32)),
            class_ids=torch.from_numpy(varied.class_ids[large].astype(np.int64)),
        )
        return _tensor(vary_colours(varied.image, self._augmentation)), in_frame


def _tensor(frame: UInt8Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frame))


class EpochOrder:
    """Batches of (epoch, index), shuffled by seed and epoch; an incomplete last batch is dropped.

    Args:
        count: number of pictures.
        batch: frames per step; all pictures where there are fewer.
        seed: seed of the order.
        epoch: the epoch.
    """

    def __init__(self, count: int, batch: int, *, seed: int, epoch: int) -> None:
        order = np.random.default_rng((seed, epoch)).permutation(count).tolist()
        self._batches = [
            [(epoch, index) for index in order[start : start + batch]]
            for start in range(0, max(count - batch, 0) + 1, batch)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self._batches)


def collate(examples: Sequence[Example]) -> tuple[Tensor, list[FrameTruth]]:
    """Frames uint8 [batch, height, width, 3], and the label of each."""
    frames, truths = zip(*examples, strict=True)
    return torch.stack(frames), list(truths)
