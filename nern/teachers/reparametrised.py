"""A program that takes the weights of layers which its checkpoint stores in a form, such as weight norm."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nern.forms import Form
from nern.graph.batching import Batched
from nern.graph.interpreter import NOTHING, GraphNetwork

Shape = Sequence[int]


class Reparametrised(Batched):
    """A batched program. `weights` of its `forward` may have weights of layers that the checkpoint stores in a form.

    The program gets the tensors of the form, and the weight itself, whichever its nodes take. `tensors` has the tensors of the
    original network by name. Raises BadProgram, see Batched.
    """

    def __init__(
        self, network: GraphNetwork, samples: Sequence[Shape] | None, forms: Sequence[Form], tensors: Mapping[str, Tensor]
    ) -> None:
        super().__init__(network, samples)
        self._forms = tuple(forms)
        # The names of tensors may be those of attributes of a module, so the tensors are numbered.
        self._others = {name: f"part_{number}" for number, name in enumerate(part for form in forms for part in form.parts[1:])}
        for name, attribute in self._others.items():
            self.register_buffer(attribute, tensors[name], persistent=False)

    def forward(self, *inputs: Tensor, weights: Mapping[str, Tensor] = NOTHING) -> Any:
        """The outputs for N samples. `weights`, by the names of tensors and of layers, replace those of the network."""
        given = dict(weights)
        others = {name: getattr(self, attribute) for name, attribute in self._others.items()}
        for form in self._forms:
            if form.weight in weights:
                weight = weights[form.weight]
                given |= form.restore(weight, others) | {form.weight: form.applied(weight, others)}
        return super().forward(*inputs, weights=given)
