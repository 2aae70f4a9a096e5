"""Operations in the form that litert-torch takes, or that TFLite's runtimes compute exactly enough."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize
from torch.overrides import TorchFunctionMode

_LARGE = 1024  # values; below, one step is exact and quick enough
_PARAMETERS = {
    adaptive_avg_pool2d: ("input", "output_size"),
    Tensor.mean: ("input", "dim", "keepdim"),
    torch.mean: ("input", "dim", "keepdim"),
    normalize: ("input", "p", "dim", "eps", "out"),
}


class TfliteForms(TorchFunctionMode):
    """While it is entered, some operations are done in another form that is the same function.

    Averages over height and width of large maps are taken over one, then over the other. TFLite's kernels sum one
    value after the other in float32: over 300 × 300 the mean is off by 1e-5 of the values, and by 1e-4 of itself where
    they cancel, which squeeze-and-excitation hands on to all channels. Two steps are off by a twentieth of that, and
    take half the time (300 × 300 × 64: 13 ms and 8 ms with the convolution in front).

    `normalize` divides by its norm without spreading that first: litert-torch 0.10 gets the layout of what was spread
    wrong (torchvision's SSD300).
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        told = dict(zip(_PARAMETERS.get(function, ()), args, strict=False)) | kwargs
        values = told.get("input")
        if function is adaptive_avg_pool2d and told.get("output_size") in (1, (1, 1), [1, 1]):
            if _is_large(values, (-2, -1)):
                return values.mean(-2, keepdim=True).mean(-1, keepdim=True)
        elif function in (Tensor.mean, torch.mean) and not told.keys() - {"input", "dim", "keepdim"}:
            dims = told.get("dim")
            if isinstance(dims, tuple | list) and len(dims) == 2 and _is_large(values, dims):
                first, second = sorted(dim % values.ndim for dim in dims)
                averaged = values.mean(first, keepdim=True).mean(second, keepdim=True)
                return averaged if told.get("keepdim") else averaged.squeeze(second).squeeze(first)
        elif function is normalize and told.get("out") is None:
            return _normalised(**told)
        return function(*args, **kwargs)


def _normalised(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:  # noqa: A002
    normed: Tensor = input / torch.linalg.vector_norm(input, p, dim, keepdim=True).clamp_min(eps)
    return normed


def _is_large(tensor: Any, dims: Any) -> bool:
    return bool(tensor.ndim == 4 and math.prod(tensor.shape[dim] for dim in dims) >= _LARGE)
