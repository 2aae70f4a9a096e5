"""Torch's names of operations with weights, as a dispatch mode sees them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_CONVOLUTIONS = ("aten.convolution.default", "aten._convolution.default", "aten.conv2d.default")
_MATRIX_PRODUCTS = {"aten.addmm.default": 2, "aten.mm.default": 1, "aten.linear.default": 1}  # index of the weights


def is_convolution(function: str) -> bool:
    """Whether an operation, given as `str(function)`, is a convolution."""
    return function in _CONVOLUTIONS


def is_matrix_product(function: str) -> bool:
    """Whether an operation is a matrix product; both factors may be activations."""
    return function in _MATRIX_PRODUCTS


def weights_of(function: str, arguments: Any) -> Tensor:
    """The second factor of a convolution or matrix product."""
    weights: Tensor = arguments[_MATRIX_PRODUCTS.get(function, 1)]
    return weights


def read_by(function: str, arguments: Any) -> Tensor:
    """The first factor."""
    read: Tensor = arguments[_MATRIX_PRODUCTS.get(function, 1) - 1]
    return read
