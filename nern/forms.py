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
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from nern import tensorfile
from nern.layers import Described, TensorFacts
from nern.rendering import narrowed

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


@dataclass(frozen=True)
class Form:
    """The form of one weight.

    weight: the name of the weight that the tensors compute.
    parts: the names of the tensors: (v, g), (original, u, v) or (original, mask).
    shapes, dtypes: those of the tensors. The first ones are those of the weight.
    axis: for spectral norm, the axis of the weight that has the rows of the matrix: 0, or 1 for a transposed convolution. None
        if the shapes do not tell, see `settled`.
    """

    kind: FormKind
    weight: str
    parts: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    axis: int | None = None

    def of(self, name: str) -> TensorFacts:
        """The shape and the dtype of one of the tensors, or of the weight."""
        number = 0 if name == self.weight else self.parts.index(name)
        return TensorFacts(self.shapes[number], self.dtypes[number])

    @property
    def replaced(self) -> tuple[str, ...]:
        """The names of the tensors that the weight takes the place of: with the weight, nothing of them need be kept."""
        return self.parts[:2] if self.kind == "weight norm" else self.parts[:1]

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
            weight = first / _sigma(first, others[0], others[1], self.axis)
        else:
            weight = first * others[0]
        return weight.to(tensors[self.parts[0]].dtype)

    def restore(self, weight: Tensor, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `rebuilt` for another weight, by name; same shape and dtype as `weight`. It has gradients.

        `kept` has the tensors of the original network. For weight norm, v becomes the weight, and g becomes its norm. For
        spectral norm, the original weight becomes the weight, and u is scaled so that u W v is 1. For pruning, the original
        weight becomes the weight: what is under the mask does not count.
        """
        if self.kind == "weight norm":
            return {self.parts[0]: weight, self.parts[1]: _norm(weight, self.shapes[1])}
        if self.kind == "spectral norm":
            u, v = (kept[name].to(weight) for name in self.parts[1:])
            return {self.parts[0]: weight, self.parts[1]: u / _sigma(weight, u, v, self.axis)}
        return {self.parts[0]: weight}

    def stored(self, weight: Tensor, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of `restore` in the dtypes that they had. The first one has the bits of `weight`."""
        restored = self.restore(weight.double(), kept)
        dtypes = dict(zip(self.parts, self.dtypes, strict=True))
        return {name: narrowed(tensor, dtypes[name]) for name, tensor in restored.items()} | {self.parts[0]: weight}

    def applied(self, weight: Tensor, kept: Mapping[str, Tensor]) -> Tensor:
        """The weight that the module computes from the tensors of `restore`. It has gradients."""
        return weight * kept[self.parts[1]].to(weight) if self.kind == "pruned" else weight

    def settled(self, tensors: Mapping[str, Tensor]) -> "Form":
        """The same form, with the axis that the values of the original tensors tell if the shapes do not."""
        if self.kind != "spectral norm" or self.axis is not None:
            return self
        first, u, v = (tensors[name].double() for name in self.parts)
        # The vectors are those of the largest singular value. Along the wrong axis, the product is smaller.
        return replace(self, axis=max((0, 1), key=lambda axis: abs(_sigma(first, u, v, axis).item())))

    def to_json(self) -> dict[str, Any]:
        """The form as a JSON object."""
        return {
            "kind": self.kind,
            "weight": self.weight,
            "parts": self.parts,
            "shapes": self.shapes,
            "dtypes": [tensorfile.NAMES[dtype] for dtype in self.dtypes],
            "axis": self.axis,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Form":
        """The inverse of `to_json`."""
        return cls(
            value["kind"],
            value["weight"],
            tuple(value["parts"]),
            tuple(tuple(shape) for shape in value["shapes"]),
            tuple(tensorfile.DTYPES[dtype] for dtype in value["dtypes"]),
            value["axis"],
        )


def find_forms(tensors: Mapping[str, Described]) -> list[Form]:
    """The forms of all reparametrised weights, in the order of the first tensor of each."""
    forms = []
    taken: set[str] = set()
    for kind, ends in ENDS:
        for name in tensors:
            base = name.removesuffix(ends[0])
            parts = tuple(f"{base}{end}" for end in ends)
            if base == name or not taken.isdisjoint(parts) or not all(part in tensors for part in parts):
                continue
            found = [tensors[part] for part in parts]
            shapes, dtypes = tuple(tuple(one.shape) for one in found), tuple(one.dtype for one in found)
            form = Form(kind, PARAMETRIZATIONS.sub(r"\1", base), parts, shapes, dtypes, _axis(kind, shapes))
            if _consistent(form) and form.weight not in tensors and form.weight not in taken:
                forms.append(form)
                taken.update(parts, [form.weight])
    place = {name: number for number, name in enumerate(tensors)}
    return sorted(forms, key=lambda form: place[form.parts[0]])


def with_weights(tensors: Mapping[str, Described], forms: Sequence[Form]) -> dict[str, Described]:
    """The tensors, with each weight in the place of the first of the tensors that it replaces."""
    weights = {name: form for form in forms for name in form.replaced}
    found: dict[str, Described] = {}
    for name, tensor in tensors.items():
        form = weights.get(name)
        found[form.weight if form else name] = form.of(form.weight) if form else tensor
    return found


def with_parts(tensors: Mapping[str, Described], forms: Sequence[Form]) -> dict[str, Described]:
    """The inverse of `with_weights`, except that the tensors that a weight replaces are next to each other."""
    replaced = {form.weight: {name: form.of(name) for name in form.replaced} for form in forms}
    found: dict[str, Described] = {}
    for name, tensor in tensors.items():
        found |= replaced.get(name, {name: tensor})
    return found


def form_notes(forms: Sequence[Form]) -> list[str]:
    """A sentence for each kind of form."""
    notes = []
    for kind in dict.fromkeys(form.kind for form in forms):
        names = [form.weight for form in forms if form.kind == kind]
        others = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
        how = "as a weight and a mask" if kind == "pruned" else f"with {kind}"
        notes.append(f"{names[0]!r}{others} stored {how}: what it computes is represented, and comes back in that form")
    return notes


def _axis(kind: FormKind, shapes: Sequence[tuple[int, ...]]) -> int | None:
    """The axis that has the rows of the matrix of a spectral norm, if the shapes tell."""
    fitting = [axis for axis, extent in enumerate(shapes[0][:2]) if kind == "spectral norm" and shapes[1] == (extent,)]
    return fitting[0] if len(fitting) == 1 else None


def _consistent(form: Form) -> bool:
    """Whether the shapes and dtypes are those of the form."""
    first, second, *_ = form.shapes
    if any(dtype.is_complex if form.kind == "pruned" else not dtype.is_floating_point for dtype in form.dtypes):
        return False
    if form.kind == "pruned":
        return first == second
    if form.kind == "spectral norm":
        third = form.shapes[2]
        vectors = len(first) > 1 and len(second) == len(third) == 1
        return vectors and second[0] in first[:2] and second[0] * third[0] == math.prod(first)
    return not second or (
        len(first) == len(second) and all(extent in (1, whole) for extent, whole in zip(second, first, strict=True))
    )


def _norm(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The norms of a weight along all axes whose extent in `shape` is 1, in this shape. An empty shape has one norm."""
    axes = [axis for axis, extent in enumerate(shape) if extent == 1] if shape else list(range(weight.ndim))
    norms: Tensor = torch.linalg.vector_norm(weight, dim=axes)
    return norms.reshape(shape)


def _sigma(weight: Tensor, u: Tensor, v: Tensor, axis: int | None) -> Tensor:
    """The spectral norm u W v, where the rows of W are along `axis` of the weight: 0, or 1 for a transposed convolution.

    Without an axis, it is the axis with the larger product.
    """
    norms: list[Tensor] = [u @ weight.movedim(one, 0).flatten(1) @ v for one in ((0, 1) if axis is None else (axis,))]
    return max(norms, key=lambda norm: abs(norm.item())) if axis is None else norms[0]
