"""The class names of the data sets that the zoo's weights were trained on."""

from __future__ import annotations

VOC = [
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]

# The nineteen evaluated classes in their train ids, and what the reference's twentieth channel stands for.
CITYSCAPES = [
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "background"),
]


def class_names(name: str) -> tuple[str, ...]:
    """The class names of "coco", "voc", "cityscapes" or "imagenet", by class id."""
    if name == "voc":
        return tuple(VOC)
    if name == "cityscapes":
        return tuple(CITYSCAPES)
    # torchvision carries both lists in its weights' metadata; it is there wherever networks are built.
    if name == "coco":
        from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights as Weights

        skipped = {"__background__", "N/A"}
        return tuple(label for label in Weights.DEFAULT.meta["categories"] if label not in skipped)
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
