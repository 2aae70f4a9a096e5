"""Narrows a newly built network to the shapes of saved weights, which replaces a pickled network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgecnn.errors import WeightsError


def reshape_like(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network's layers the widths of these tensors, in place; then `fit_weights` can load them.

    Parameters and buffers of another shape than the tensor of their name become uninitialised ones of its shape,
    and the layers' own numbers (channels, groups, features) follow; depthwise convolutions stay depthwise. Names
    without a tensor and tensors without a name are left to `fit_weights`.

    Args:
        module: convolutions, linear layers, batch, layer and group normalisations, PReLUs, and parameters of
            classes that are not torch's can be narrowed.
        tensors: by name, of the pruned network.

    Raises:
        WeightsError: a tensor is wider than the network, has other axes or kernels, or belongs to a layer that cannot
            be narrowed; then nothing is changed.
    """
    layers = {name: shapes for name, layer in module.named_modules() if (shapes := _other_shapes(name, layer, tensors))}
    counts = {name: _counts(name, module.get_submodule(name), shapes) for name, shapes in layers.items()}
    for name, shapes in layers.items():
        layer = module.get_submodule(name)
        for attribute, shape in shapes.items():
            _replace(layer, attribute, shape)
        for attribute, count in counts[name].items():
            setattr(layer, attribute, count)


def _other_shapes(name: str, layer: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's own saved tensors where they differ."""
    own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
    prefix = f"{name}." if name else ""
    shapes = {}
    for attribute, tensor in own.items():
        saved = tensors.get(prefix + attribute)
        if saved is None or saved.shape == tensor.shape:
            continue
        if saved.dim() != tensor.dim() or any(s > t for s, t in zip(saved.shape, tensor.shape, strict=True)):
            raise WeightsError(
                f"{prefix + attribute} is {list(saved.shape)} in the file and {list(tensor.shape)} in the network; a "
                "pruned network is narrower than the built one: check that the file belongs to this network"
            )
        shapes[attribute] = tuple(saved.shape)
    return shapes


def _counts(name: str, layer: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int | tuple[int, ...]]:
    """The numbers that a layer stores besides its tensors, for their new shapes."""
    match layer:
        case _ConvNd():
            return _convolution_counts(name, layer, shapes)
        case nn.Linear():
            outputs, inputs = shapes.get("weight", tuple(layer.weight.shape))
            return {"out_features": outputs, "in_features": inputs}
        case _BatchNorm():
            return {"num_features": min(shape[0] for shape in shapes.values())}
        case nn.LayerNorm():
            return {"normalized_shape": min(shapes.values())}
        case nn.GroupNorm():
            return {"num_channels": min(shape[0] for shape in shapes.values())}
        case nn.PReLU():
            return {"num_parameters": shapes["weight"][0]}
    if type(layer).__module__.startswith("torch.nn."):
        raise WeightsError(f"{name} is a {type(layer).__name__}, which cannot be narrowed as in the file")
    return {}


def _convolution_counts(
    name: str, layer: _ConvNd, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int | tuple[int, ...]]:
    before = tuple(layer.weight.shape)
    after = shapes.get("weight", before)
    if after[2:] != before[2:]:
        raise WeightsError(
            f"{name} has a kernel of {list(before[2:])} px, the file one of {list(after[2:])}: the file is for another "
            f"network"
        )
    depthwise = 1 < layer.groups == layer.in_channels == layer.out_channels
    groups = after[0] if depthwise else layer.groups
    outputs, inputs = (after[1] * groups, after[0]) if layer.transposed else (after[0], after[1] * groups)
    if outputs % groups or inputs % groups:
        raise WeightsError(
            f"{name} has {groups} groups, which the file's {inputs} inputs and {outputs} outputs don't divide into"
        )
    return {"out_channels": outputs, "in_channels": inputs, "groups": groups}


def _replace(layer: nn.Module, attribute: str, shape: tuple[int, ...]) -> None:
    old = getattr(layer, attribute)
    new = old.detach().new_empty(shape)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(layer, attribute, new)
