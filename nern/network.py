"""A network for a training: its tensors, and the code or the program that computes its outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from nern import architectures
from nern.facts import NetworkFacts
from nern.forms import Form
from nern.graph.batching import Batched
from nern.graph.interpreter import GraphNetwork
from nern.graph.program import Program
from nern.state_dicts import aliases
from nern.teachers import Forms, Renamed, ReparametrisedModule, ReparametrisedProgram

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """A network: the tensors of a checkpoint by name, on the CPU, and what computes the outputs.

    architecture: the name of an architecture, or None if it is unknown.
    program: the network as a program. It is used unless `architecture` names an architecture.

    Tensors that share memory are tied: a training represents them once.
    """

    state_dict: Mapping[str, Tensor]
    architecture: str | None = None
    program: Program | None = None

    @cached_property
    def facts(self) -> NetworkFacts:
        """The facts that planning needs."""
        return NetworkFacts(self.state_dict, self.architecture, self.program, aliases(self.state_dict))

    @cached_property
    def forms(self) -> list[Form]:
        """The forms of the layers that are stored in one, such as weight norm."""
        return [form.settled(self.state_dict) for form in self.facts.forms]

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """The tensors of the checkpoint by name, and the weights that layers stored in a form compute, in their dtypes."""
        return {**self.state_dict, **{form.weight: form.compute(self.state_dict) for form in self.forms}}

    def build(self, samples: Sequence[Shape] | None = None) -> nn.Module:
        """The module that computes the outputs, in float32 and in eval mode. Its parameters have no gradients.

        `nern.teachers.call` calls it with weights by the names of the checkpoint. `samples` has the shape of each input without
        the batch; None: the shapes that the program has. Raises UnknownArchitecture if the state_dict does not match the
        architecture, and BadProgram if it lacks a tensor of the program, or if the program can't compute such inputs.
        """
        facts = self.facts
        forms = Forms(self.forms, self.state_dict) if self.forms else None
        if facts.program is not None:
            tensors = {value: facts.aliases.get(name, name) for value, name in facts.program.tensors.items()}
            network = GraphNetwork(replace(facts.program, tensors=tensors), self.weights)
            return (Batched(network, samples) if forms is None else ReparametrisedProgram(network, samples, forms)).eval()
        assert facts.architecture is not None, "only a known network can be built"
        match = architectures.match(facts.architecture, architectures.shapes_of(facts.formless))
        module = architectures.build(facts.architecture, {name: self.weights[name] for name in facts.formless})
        if forms is None:
            return Renamed(module, match.view, facts.aliases, list(match.outputs))
        return ReparametrisedModule(module, match.view, facts.aliases, list(match.outputs), forms)
