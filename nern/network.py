"""A network for a training: its tensors, and the code or the program that computes its outputs."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from nern import architectures
from nern.facts import NetworkFacts
from nern.graph.interpreter import GraphNetwork
from nern.graph.program import Program
from nern.teachers import Prefixed


@dataclass(frozen=True)
class Network:
    """A network: the tensors of a checkpoint by name, on the CPU, and what computes the outputs.

    architecture: the name of an architecture, or None if it is unknown.
    program: the network as a program. It is used unless `architecture` names an architecture.
    prefix: what the names of the checkpoint have before the names in the module of the architecture, such as `backbone.`.
        Tensors without the prefix do not belong to the module.
    """

    state_dict: Mapping[str, Tensor]
    architecture: str | None = None
    program: Program | None = None
    prefix: str = ""

    def facts(self) -> NetworkFacts:
        """The facts that planning needs."""
        return NetworkFacts(self.state_dict, self.architecture, self.program, self.prefix)

    def build(self) -> nn.Module:
        """The module that computes the outputs, in float32 and in eval mode. Its parameters have no gradients.

        `nern.teachers.call` calls it with weights by the names of the checkpoint. Raises UnknownArchitecture if the state_dict
        does not match the architecture, and BadProgram if it lacks a tensor of the program.
        """
        facts = self.facts()
        if facts.program is not None:
            return GraphNetwork(facts.program, self.state_dict).eval()
        assert facts.architecture is not None, "only a known network can be built"
        own = {name: self.state_dict[f"{self.prefix}{name}"] for name in facts.named_in_module(self.state_dict)}
        module = architectures.build(facts.architecture, own)
        return Prefixed(module, self.prefix) if self.prefix else module
