"""Networks that take the weights of layers which their checkpoint stores in a form, such as weight norm."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nern.forms import Form
from nern.graph.batching import Batched
from nern.graph.interpreter import NOTHING, GraphNetwork
from nern.prefixes import View
from nern.teachers.renamed import Renamed

Shape = Sequence[int]


class Forms(nn.Module):
    """The forms of a network. `tensors` has the tensors of the original network by name."""

    def __init__(self, forms: Sequence[Form], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._forms = tuple(forms)
        # The names of tensors may be those of attributes of a module, so the tensors are numbered.
        self._others = {name: f"part_{number}" for number, name in enumerate(part for form in forms for part in form.parts[1:])}
        for name, attribute in self._others.items():
            self.register_buffer(attribute, tensors[name], persistent=False)

    def forward(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights, and for each layer that is stored in a form the tensors of the form and the weight that they make."""
        given = dict(weights)
        others = {name: getattr(self, attribute) for name, attribute in self._others.items()}
        for form in self._forms:
            if form.weight in weights:
                weight = weights[form.weight]
                given |= form.restore(weight, others) | {form.weight: form.applied(weight, others)}
        return given


class ReparametrisedProgram(Batched):
    """A batched program. `weights` of its `forward` may have weights of layers that the checkpoint stores in a form.

    The program gets the tensors of the form, and the weight itself, whichever its nodes take. Raises BadProgram, see Batched.
    """

    def __init__(self, network: GraphNetwork, samples: Sequence[Shape] | None, forms: Forms) -> None:
        super().__init__(network, samples)
        self._forms = forms

    def forward(self, *inputs: Tensor, weights: Mapping[str, Tensor] = NOTHING) -> Any:
        """The outputs for N samples. `weights`, by the names of tensors and of layers, replace those of the network."""
        return super().forward(*inputs, weights=self._forms(weights))


class ReparametrisedModule(Renamed):
    """A known module. `weights` of its `forward` may have weights of layers that the checkpoint stores in a form."""

    def __init__(self, module: nn.Module, view: View, aliases: Mapping[str, str], outputs: Sequence[str], forms: Forms) -> None:
        super().__init__(module, view, aliases, outputs)
        self._forms = forms

    def forward(self, *inputs: Tensor, weights: Mapping[str, Tensor] = NOTHING) -> Any:
        """What the module returns for these inputs. `weights`, by the names of tensors and of layers, replace its tensors."""
        return super().forward(*inputs, weights=self._forms(weights))
