"""Facts about networks and data that planning needs. They need no weights and no inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from nern import architectures, tensorfile
from nern.architectures import Match
from nern.errors import BadProgram, UnknownArchitecture, UnusableImages
from nern.evaluation import Choose
from nern.forms import Form, find_forms, with_weights
from nern.graph.facts import facts as graph_facts
from nern.graph.program import Port, Program
from nern.layers import Described, Layer, find_layers, find_linear
from nern.objectives import LabelFacts, Objective, OutputFacts, choose, outputs_of
from nern.request.options import NoiseKind, ObjectiveChoice
from nern.teachers import norms

# The `architecture` of a network that a program computes.
GRAPH = "graph"

# The kinds of outputs of architectures that hold classes.
CLASSES = ("logits", "dense classes")

Shape = tuple[int, ...]


class NetworkFacts:
    """Facts about a network.

    tensors: the shapes and dtypes by name, in the order of the state_dict.
    architecture: the name of the architecture, or None if it is unknown or a program computes the network.
    program: the program that computes the network, or None. A given program is used unless an architecture is named.
    aliases: the names of tied tensors, each with the name of the tensor that it is the same as.

    A weight that is stored in a form, such as weight norm, is a layer of its own name (see `nern.forms`).
    """

    def __init__(
        self,
        tensors: Mapping[str, Described],
        architecture: str | None,
        program: Program | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.tensors = tensors
        self.named_graph = architecture == GRAPH
        self.architecture = None if architecture == GRAPH else architecture
        self.program = program if self.architecture is None else None
        self.aliases = aliases or {}

    @property
    def name(self) -> str | None:
        """The name of the architecture, GRAPH for a program, or None for a network that can't be computed."""
        return self.architecture or (GRAPH if self.program is not None else None)

    @property
    def can_be_computed(self) -> bool:
        """Whether the outputs of the network can be computed."""
        return self.architecture is not None or self.program is not None

    def validate(self) -> None:
        """Raises UnknownArchitecture if the tensors do not match the architecture, and BadProgram if the program lacks one."""
        if self.named_graph and self.program is None:
            raise UnknownArchitecture("the checkpoint has no graph: leave out the architecture", "/architecture")
        if self.architecture is not None:
            assert self._match is not None
        if self.program is not None:
            for name in self.program.tensors.values():
                if name not in self.tensors and name not in self.own:
                    raise BadProgram(f"the graph takes the tensor {name!r}, which the checkpoint does not have")

    @cached_property
    def convolutions(self) -> list[Layer]:
        """The convolutions, in the order of the state_dict. Tied layers count as one."""
        return find_layers(self.own, self._weights)

    @cached_property
    def linear(self) -> list[Layer]:
        """The linear layers and the tables of embeddings, in the order of the state_dict. Tied layers count as one."""
        return find_linear(self.own, self._weights)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs of a network that can be computed."""
        if self.program is not None:
            return self.program.inputs
        assert self._match is not None
        channels, *size = self._match.input_shape
        return (Port("images", "F32", (None, channels, *[None] * len(size))),)

    @property
    def classes(self) -> int | None:
        """The number of classes, as far as it is known: the second extent of the only output of the network, (B, C)."""
        if self._match is not None:
            return self._match.classes or None
        outputs = [one for one in outputs_of(self.program) if one.floating] if self.program is not None else []
        if len(outputs) != 1 or outputs[0].shape is None or len(outputs[0].shape) != 2:
            return None
        return outputs[0].shape[1]

    @property
    def classifies_inputs(self) -> bool:
        """Whether the network is known by name as one that gives one class for each input."""
        return self._match is not None and set(self._match.outputs.values()) == {"logits"}

    @property
    def has_statistics(self) -> bool:
        """Whether a batch norm of the network stores statistics."""
        if self.program is not None:
            return norms.has_statistics(self.program)
        return any(name.endswith("running_mean") for name in self.tensors)

    def noise_shapes(self) -> tuple[Shape, ...]:
        """The shapes of noise for each input, without the batch. Raises UnusableImages if noise can't replace the inputs."""
        if self._match is not None:
            return (self._match.input_shape,)
        return tuple(self._noise_shapes())

    def chooser(self, wanted: ObjectiveChoice) -> Choose:
        """The function that chooses the objectives of the outputs. `wanted` is the option of the request."""
        by_name = [] if self._match is None else [name for name, kind in self._match.outputs.items() if kind in CLASSES]
        axes = {} if self.program is None else {one.name: one.softmax_axis for one in outputs_of(self.program)}

        def chosen(outputs: Sequence[OutputFacts], labels: LabelFacts | None) -> Sequence[Objective]:
            described = [replace(one, softmax_axis=axes.get(one.name)) for one in outputs]
            return choose(described, wanted, labels, by_name=by_name)

        return chosen

    @cached_property
    def _match(self) -> Match | None:
        if self.architecture is None:
            return None
        return architectures.match(self.architecture, architectures.shapes_of(self.formless))

    @property
    def stored(self) -> dict[str, Described]:
        """The tensors without aliases."""
        return {name: tensor for name, tensor in self.tensors.items() if name not in self.aliases}

    @cached_property
    def forms(self) -> list[Form]:
        """The forms of the layers that are stored in one."""
        found = find_forms(self.stored)
        weights = with_weights(self.stored, found)
        layers = {layer.name for layer in (*find_layers(weights), *find_linear(weights))} if found else set()
        return [form for form in found if form.weight in layers]

    @cached_property
    def own(self) -> dict[str, Described]:
        """The tensors without aliases, with weights in place of what they are computed from."""
        return with_weights(self.stored, self.forms)

    @property
    def formless(self) -> dict[str, Described]:
        """The tensors of the same network without forms, aliases included."""
        parts = {part for form in self.forms for part in form.parts}
        return {name: tensor for name, tensor in with_weights(self.tensors, self.forms).items() if name not in parts}

    @property
    def plain(self) -> dict[str, Described]:
        """The tensors of the same network without forms and without aliases."""
        return {name: tensor for name, tensor in self.formless.items() if name not in self.aliases}

    @cached_property
    def _weights(self) -> set[str]:
        """The tensors that the program uses as weights of convolutions, linear layers and embeddings."""
        if self.program is None:
            return set()
        found = graph_facts(self.program, {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}).weights
        return {self.aliases.get(name, name) for name in found}

    def _noise_shapes(self) -> Iterator[Shape]:
        for port in self.inputs:
            if not tensorfile.DTYPES[port.dtype].is_floating_point:
                detail = f"the input {port.name!r} takes integers, which noise can't replace: send a dataset"
                raise UnusableImages(detail, "/data/noise")
            extents = port.shape[1:] if port.shape else ()
            known = tuple(extent for extent in extents if extent is not None)
            if not port.shape or len(known) < len(extents):
                shape = " x ".join("any" if extent is None else str(extent) for extent in port.shape or ())
                detail = f"the input {port.name!r} is {shape or 'of any shape'}, so the shape of noise is not known"
                raise UnusableImages(f"{detail}: send a dataset, or export the network with a fixed shape", "/data/noise")
            yield known


@dataclass(frozen=True)
class ImageFacts:
    """Facts about a dataset of images.

    `images` and `channels` are numbers of images and of colour channels. `classes` is the largest label + 1, or None without
    one class for each image. `height` and `width` are in pixels, or None if they are not known. `targets` are the facts about
    labels of another kind.
    """

    images: int
    channels: int
    classes: int | None
    height: int | None = None
    width: int | None = None
    targets: LabelFacts | None = None

    def __len__(self) -> int:
        return self.images

    @property
    def labels(self) -> LabelFacts | None:
        """The facts about the labels, or None without labels."""
        return self.targets if self.classes is None else LabelFacts("classes", (), self.classes)


@dataclass(frozen=True)
class ArrayFacts:
    """The dtype of an array, in the notation of safetensors, and the shape of one input."""

    dtype: str
    shape: Shape

    @property
    def floating(self) -> bool:
        """Whether the array holds floating-point numbers."""
        return self.dtype in tensorfile.DTYPES and tensorfile.DTYPES[self.dtype].is_floating_point


@dataclass(frozen=True)
class InputFacts:
    """Facts about a dataset of other inputs: their number, the arrays by name, and the labels or None."""

    inputs: int
    arrays: Mapping[str, ArrayFacts]
    labels: LabelFacts | None

    def __len__(self) -> int:
        return self.inputs


@dataclass(frozen=True)
class NoiseFacts:
    """The kind of noise that a job uses in place of a dataset, and its shapes; None: those that the network takes."""

    kind: NoiseKind
    shapes: tuple[Shape, ...] | None = None


DataFacts = ImageFacts | InputFacts | NoiseFacts
