"""Reparametrised weights: weights that a state_dict holds as several tensors, from which the module computes the weight.

A predictor represents what the tensors compute. The rebuilt weight comes back in the form that it had. The forms are:

- weight norm (Salimans and Kingma, arXiv 1602.07868): direction v and magnitude g; the weight is g v / |v|.
- spectral norm (Miyato et al., arXiv 1802.05957): original weight W and vectors u, v; the weight is W / (u W v).
- pruning (torch.nn.utils.prune): original weight and mask; the weight is their product.

torch.nn.utils has two implementations of both norms. The older ones add suffixes to the name of the weight (`weight_g`), the
newer ones put the tensors below `parametrizations.weight`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

FormKind = Literal["weight norm", "spectral norm", "pruned"]

# For each form, the ends of the names of its tensors. The first tensor has the shape of the weight. A form with more tensors
# comes before a form whose ends it has too.
ENDS: tuple[tuple[FormKind, tuple[str, ...]], ...] = (
    ("spectral norm", ("_orig", "_u", "_v")),
    ("spectral norm", (".original", ".0._u", ".0._v")),
    ("pruned", ("_orig", "_mask")),
    ("weight norm", ("_v", "_g")),
    ("weight norm", (".original1", ".original0")),
)

# The module below which the newer implementations keep their tensors.
PARAMETRIZATIONS = re.compile(r"(^|\.)parametrizations\.(?=[^.]+$)")


class Shaped(Protocol):
    """A tensor, or a description that has the shape of a tensor."""

    @property
    def shape(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Form:
    """The form of one weight.

    weight: the name of the weight that the tensors compute.
    parts: the names of the tensors: (v, g), (original, u, v) or (original, mask).
    shapes: the shapes of the tensors. The first one is the shape of the weight.
    """

    kind: FormKind
    weight: str
    parts: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def rebuilt(self) -> tuple[str, ...]:
        """The names of the tensors that `restore` makes from a weight. All others are kept."""
        return self.parts[:1] if self.kind == "pruned" else self.parts[:2]

    def compute(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The weight, in the shape and the dtype of the first tensor."""
        first, *others = (tensors[name].double() for name in self.parts)
        if self.kind == "weight norm":
            norm = _norm(first, self.shapes[1])
            weight = first * (others[0] / norm.where(norm > 0, 1.0))
        elif self.kind == "spectral norm":
            weight = first / _sigma(first, *others)
        else:
            weight = first * others[0]
        return weight.to(tensors[self.parts[0]].dtype)

    def restore(self, weight: Tensor, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `rebuilt` for another weight, by name; same shape and dtype as `weight`. It has gradients.

        `kept` has the tensors of the original network. For weight norm, v becomes the weight, and g becomes its norm. For
        spectral norm, the original weight becomes the weight, and u is scaled so that u W v is 1.
        """
        if self.kind == "weight norm":
            return {self.parts[0]: weight, self.parts[1]: _norm(weight, self.shapes[1])}
        if self.kind == "spectral norm":
            u, v = (kept[name].to(weight) for name in self.parts[1:])
            return {self.parts[0]: weight, self.parts[1]: u / _sigma(weight, u, v)}
        return {self.parts[0]: weight}


def find_forms(tensors: Mapping[str, Shaped]) -> list[Form]:
    """The forms of all reparametrised weights, in the order of the first tensor of each."""
    forms = []
    taken: set[str] = set()
    for kind, ends in ENDS:
        for name in tensors:
            base = name.removesuffix(ends[0])
            parts = tuple(f"{base}{end}" for end in ends)
            if base == name or not taken.isdisjoint(parts) or not all(part in tensors for part in parts):
                continue
            form = Form(kind, PARAMETRIZATIONS.sub(r"\1", base), parts, tuple(tuple(tensors[part].shape) for part in parts))
            if _consistent(form) and form.weight not in tensors:
                forms.append(form)
                taken.update(parts)
    place = {name: number for number, name in enumerate(tensors)}
    return sorted(forms, key=lambda form: place[form.parts[0]])


def _consistent(form: Form) -> bool:
    """Whether the shapes are those of the form."""
    first, second, *_ = form.shapes
    if form.kind == "pruned":
        return first == second
    if form.kind == "spectral norm":
        return len(first) > 1 and second[0] in first[:2] and second[0] * form.shapes[2][0] == math.prod(first)
    return not second or (
        len(first) == len(second) and all(extent in (1, whole) for extent, whole in zip(second, first, strict=True))
    )


def _norm(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The norms of a weight along all axes whose extent in `shape` is 1, in this shape. An empty shape has one norm."""
    axes = [axis for axis, extent in enumerate(shape) if extent == 1] if shape else list(range(weight.ndim))
    norms: Tensor = torch.linalg.vector_norm(weight, dim=axes)
    return norms.reshape(shape)


def _sigma(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The spectral norm u W v, where W is the weight as a matrix whose rows are filters or, if transposed, channels."""
    norms: list[Tensor] = [u @ weight.movedim(axis, 0).flatten(1) @ v for axis in (0, 1) if weight.shape[axis] == len(u)]
    # The vectors are those of the largest singular value. Along the wrong axis, the product is smaller.
    return max(norms, key=lambda norm: abs(norm.item()))
