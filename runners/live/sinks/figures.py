"""A result in figures: one a label."""

from __future__ import annotations

import numpy as np

from edgecnn.results import Classification, Detections, Instances, Result


def figures_of(result: Result) -> dict[str, float]:
    """How many objects there are of each class; of a classification, scores; of a segmentation, shares of the area."""
    if isinstance(result, Classification):
        return dict(result)
    if isinstance(result, Detections | Instances):
        found = result.detections if isinstance(result, Instances) else result
        class_ids, counts = np.unique(found.class_ids, return_counts=True)
        return {found.labels[i]: float(n) for i, n in zip(class_ids.tolist(), counts.tolist(), strict=True)}
    return result.shares()
