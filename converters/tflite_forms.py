"""Rewrites operations into forms that litert-torch accepts, or that TFLite's runtimes compute exactly enough."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize
from torch.overrides import TorchFunctionMode

_LARGE = 1024  # values; for smaller maps, one step is exact and fast enough
_PARAMETERS = {
    adaptive_avg_pool2d: ("input", "output_size"),
    Tensor.mean: ("input", "dim", "keepdim"),
    torch.mean: ("input", "dim", "keepdim"),
    normalize: ("input", "p", "dim", "eps", "out"),
}


class TfliteForms(TorchFunctionMode):
    """Context in which some operations are replaced by an equivalent form.

    Averages over height and width of large maps are taken over one axis, then over the other. TFLite's kernels add one
    value after the other in float32: over 300 × 300 the mean is wrong by 1e-5 of the values, and by 1e-4 of itself
    where they cancel, and squeeze-and-excitation spreads that to all channels. Two steps give a twentieth of that error
    in half the time (300 × 300 × 64: 13 ms and 8 ms, including the convolution before).

    `normalize` divides by its norm without expanding the norm first: litert-torch 0.10 gets the layout of an expanded
    tensor wrong (torchvision's SSD300).
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = dict(zip(_PARAMETERS.get(function, ()), args, strict=False)) | kwargs
        values = given.get("input")
        if function is adaptive_avg_pool2d and given.get("output_size") in (1, (1, 1), [1, 1]):
            if _is_large(values, (-2, -1)):
                return values.mean(-2, keepdim=True).mean(-1, keepdim=True)
        elif function in (Tensor.mean, torch.mean) and not given.keys() - {"input", "dim", "keepdim"}:
            dims = given.get("dim")
            if isinstance(dims, tuple | list) and len(dims) == 2 and _is_large(values, dims):
                first, second = sorted(dim % values.ndim for dim in dims)
                averaged = values.mean(first, keepdim=True).mean(second, keepdim=True)
                return averaged if given.get("keepdim") else averaged.squeeze(second).squeeze(first)
        elif function is normalize and given.get("out") is None:
            return _normalised(**given)
        return function(*args, **kwargs)


def _normalised(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:  # noqa: A002
    normed: Tensor = input / torch.linalg.vector_norm(input, p, dim, keepdim=True).clamp_min(eps)
    return normed


def _is_large(tensor: Any, dims: Any) -> bool:
    return bool(tensor.ndim == 4 and math.prod(tensor.shape[dim] for dim in dims) >= _LARGE)
