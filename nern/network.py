"""A network for a training: its tensors, and the code or the program that computes its outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from nern import architectures
from nern.facts import NetworkFacts
from nern.graph.interpreter import GraphNetwork
from nern.graph.program import Program
from nern.state_dicts import aliases
from nern.teachers import Renamed


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

    def build(self) -> nn.Module:
        """The module that computes the outputs, in float32 and in eval mode. Its parameters have no gradients.

        `nern.teachers.call` calls it with weights by the names of the checkpoint. Raises UnknownArchitecture if the state_dict
        does not match the architecture, and BadProgram if it lacks a tensor of the program.
        """
        facts = self.facts
        if facts.program is not None:
            tensors = {value: facts.aliases.get(name, name) for value, name in facts.program.tensors.items()}
            return GraphNetwork(replace(facts.program, tensors=tensors), self.state_dict).eval()
        assert facts.architecture is not None, "only a known network can be built"
        view = architectures.match(facts.architecture, architectures.shapes_of(self.state_dict)).view
        return Renamed(architectures.build(facts.architecture, dict(self.state_dict)), view, facts.aliases)
