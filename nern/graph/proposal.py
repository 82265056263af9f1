"""Proposes a description of a plain sequential network from the shapes of its weights, for a person to correct.

Weights do not tell activations, pools and strides. A proposal has a ReLU after every layer but the last. Its paddings and pools
are such that the first linear layer gets as many numbers as it takes, if there is a choice that does so. This module does not
import torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from nern.errors import BadDescription
from nern.graph.sequential import Group, groups_of, to_program

# Heights and widths of common datasets. The first one that fits is proposed.
SIZES = (32, 28, 64, 96, 128, 224, 16, 8)


def propose(shapes: Mapping[str, Sequence[int]]) -> list[str] | None:
    """A description that fits the shapes, or None if the weights can't be those of a plain sequence."""
    groups = groups_of(shapes)
    kinds = [group.kind for group in groups]
    if None in kinds or "conv" not in kinds or not _follow_each_other(groups):
        return None
    convolutions = kinds.count("conv")
    first = next(group for group in groups if group.kind == "conv")
    dimensions = len(first.weight) - 2
    if "linear" not in kinds:
        return _steps(groups, same=True, pooled=frozenset(), bridge=())
    for (size, same), pools in product(product(SIZES, (False, True)), range(convolutions, -1, -1)):
        for pooled in _placements(convolutions, pools):
            steps = _steps(groups, same=same, pooled=pooled, bridge=("flatten",))
            if _fits(steps, shapes, (first.weight[1], *[size] * dimensions)):
                return steps
    averaged = _steps(groups, same=True, pooled=frozenset(), bridge=("adaptiveavgpool 1", "flatten"))
    if _fits(averaged, shapes, (first.weight[1], *[SIZES[0]] * dimensions)):
        return averaged
    # The first linear layer takes a number of features that no choice gives. A person may know the pools and strides.
    return _steps(groups, same=True, pooled=frozenset(), bridge=("flatten",))


def _follow_each_other(groups: Sequence[Group]) -> bool:
    """Whether every layer takes as many channels as the layer before it gives, and no convolution follows a linear layer."""
    channels, flat = 0, False
    for group in groups:
        if group.kind == "norm":
            continue
        taken = group.weight[1]
        if group.kind == "conv" and (flat or (channels and channels % taken)):
            return False
        if group.kind == "linear" and channels and (channels != taken if flat else taken % channels):
            return False
        flat, channels = group.kind == "linear", group.weight[0]
    return True


def _placements(convolutions: int, pools: int) -> Iterator[frozenset[int]]:
    """After which convolutions pools may stand: after the last ones, or after every second or third one."""
    yield frozenset(range(convolutions - pools, convolutions))
    if pools and convolutions % pools == 0:
        interval = convolutions // pools
        yield frozenset(range(interval - 1, convolutions, interval))


def _fits(steps: Sequence[str], shapes: Mapping[str, Sequence[int]], input_shape: Sequence[int]) -> bool:
    try:
        to_program(steps, shapes, input_shape)
    except BadDescription:
        return False
    return True


def _steps(groups: Sequence[Group], *, same: bool, pooled: frozenset[int], bridge: Sequence[str]) -> list[str]:
    """The description with these paddings and pools. `bridge` stands before the first linear layer."""
    steps: list[str] = []
    convolution, channels, flat = -1, 0, False
    for number, group in enumerate(groups):
        if group.kind == "linear":
            steps += ["linear"] if flat else [*bridge, "linear"]
            flat = True
        elif group.kind == "conv":
            convolution += 1
            steps.append(_conv(group, channels, same=same))
        else:
            steps.append("batchnorm" if "running_mean" in group.tensors else "layernorm")
        channels = channels if group.kind == "norm" else group.weight[0]
        if number + 1 < len(groups) and groups[number + 1].kind != "norm":
            steps.append("relu")
            if convolution in pooled and not flat:
                steps.append("maxpool 2")
    return steps


def _conv(group: Group, channels: int, *, same: bool) -> str:
    padding = max(extent // 2 for extent in group.weight[2:])
    fields = f" padding={padding}" if same and padding else ""
    if channels and channels > group.weight[1]:
        fields += f" groups={channels // group.weight[1]}"
    return f"conv{fields}"
