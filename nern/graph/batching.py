"""Programs for any number of samples, though most files are made for a batch of one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nern.errors import BadProgram
from nern.graph.interpreter import NOTHING, GraphNetwork, Observer
from nern.graph.operators import aten
from nern.graph.program import Argument, Node, Port, Ref

Way = Literal["direct", "mapped", "one by one"]

TOLERANCE = 1e-5
# Numbers of samples for which the ways are compared. With one sample, a fixed batch extent of one would not be noticed.
TRIED = (2, 3)


class Batched(nn.Module):
    """A graph network that takes any number of samples at once and gives the same as for one after the other.

    `forward` takes inputs of N x sample each, and gives outputs of N x whatever the program gives for one sample. There are
    three ways, and the first that gives the right outputs for random inputs is taken:

    - `direct`: the program itself takes the N samples. So do programs with a free batch extent, and most convolutional
      networks.
    - `mapped`: torch.vmap over the samples; the weights are not repeated. Programs that name the batch extent need it.
    - `one by one`: a loop, for programs with operators that torch.vmap does not know.

    samples: for each input, the shape of one sample of the data, which is what follows the axis N. This decides what the first
    axis of an input of the program is. An input of the shape [1, 28, 28] takes samples of 28 x 28, one at a time, or samples of
    1 x 28 x 28 without a batch axis. Without `samples`, the first axis of every input is the batch axis.

    A batch extent of k > 1 is possible: the program then takes k samples at a time. If N is not a multiple of k, the last
    sample is repeated, and what comes of the repeated ones is left out.

    Raises BadProgram if the samples do not fit the inputs, or if torch can't compute the program for them.
    """

    def __init__(self, network: GraphNetwork, samples: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        self.network = network
        self.program = network.program
        ports = self.program.inputs
        self.samples = [default_sample(port) for port in ports] if samples is None else [tuple(shape) for shape in samples]
        if len(self.samples) != len(ports):
            raise BadProgram(f"the graph takes {len(ports)} inputs ({_names(ports)}), and {len(self.samples)} are given")
        extents = [batch_extent(port, sample) for port, sample in zip(ports, self.samples, strict=True)]
        fixed = {extent for extent in extents if extent}
        if len(fixed) > 1:
            raise BadProgram(f"the inputs of the graph have the batch extents {sorted(fixed)}; export it with a batch of one")
        # How many samples the program takes at a time; which inputs have a batch axis.
        self.together = fixed.pop() if fixed else 1
        self._axes = [extent is not None for extent in extents]
        if self.together > 1 and not all(self._axes):
            raise BadProgram(
                "only some inputs of the graph have a batch axis, and its extent is not 1; export it with a batch of one"
            )
        self._observers: list[Observer] = []
        # The values that depend on the inputs.
        self._varying = {port.name for port in ports}
        for node in self.program.nodes:
            if any(name in self._varying for name in node.references()):
                self._varying.update(name for name in node.results if name is not None)
        self.way: Way = self._choose()

    def forward(self, *inputs: Tensor, weights: Mapping[str, Tensor] = NOTHING) -> Any:
        """The outputs for N samples: N x sample each in, a tensor or a tuple of tensors of N x anything out.

        `weights`, by the names of the state_dict, replace tensors of the network.
        """
        return self._run(self.way, inputs, weights)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """A context in which `observer` is called after every node of every forward pass, with the values for all samples.

        The first axis of such a value has all samples, as in a direct computation.
        """
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)

    def _run(self, way: Way, inputs: Sequence[Tensor], weights: Mapping[str, Tensor]) -> Any:
        count = len(inputs[0])
        if way == "direct":
            with _all_observed(self.network, self._observers):
                return self.network(*inputs, weights=weights)
        parts = [self._grouped(value, axis) for value, axis in zip(inputs, self._axes, strict=True)]
        if way == "mapped":

            def observe(node: Node, arguments: Sequence[Any], result: Any) -> None:
                for observer in self._observers:
                    observer(node, self._whole(list(arguments), count), self._whole(result, count))

            with _without_warnings(), _all_observed(self.network, [observe] if self._observers else []):
                outputs = torch.func.vmap(lambda *values: self.network(*values, weights=weights))(*parts)
        else:
            outputs = self._looped(parts, weights, count)
        if isinstance(outputs, Tensor):
            return self._ungrouped(outputs, count)
        return tuple(self._ungrouped(output, count) for output in outputs)

    def _looped(self, parts: Sequence[Tensor], weights: Mapping[str, Tensor], count: int) -> Any:
        seen: list[list[tuple[Node, Any, Any]]] = []

        def observe(node: Node, arguments: Sequence[Any], result: Any) -> None:
            seen[-1].append((node, list(arguments), result))

        outputs = []
        with _all_observed(self.network, [observe] if self._observers else []):
            for values in zip(*parts, strict=True):
                seen.append([])
                outputs.append(self.network(*values, weights=weights))
        for calls in zip(*seen, strict=True) if self._observers else ():
            node = calls[0][0]
            arguments = [
                self._joined([call[1][place] for call in calls], count, varies=self._varies(argument))
                for place, argument in enumerate(node.arguments)
            ]
            varies = any(name in self._varying for name in node.results if name is not None)
            result = self._joined([call[2] for call in calls], count, varies=varies)
            for observer in self._observers:
                observer(node, arguments, result)
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs)
        return tuple(torch.stack(output) for output in zip(*outputs, strict=True))

    def _grouped(self, value: Tensor, has_axis: bool) -> Tensor:
        """From N x sample to N/k x k x sample: what the program takes at a time."""
        if not has_axis:
            return value
        if missing := -len(value) % self.together:
            value = torch.cat([value, value[-1:].expand(missing, *value.shape[1:])])
        return value.reshape(-1, self.together, *value.shape[1:])

    def _ungrouped(self, value: Tensor, count: int) -> Tensor:
        """The inverse for an output. An output without a batch axis stays as it is: one for every sample."""
        if any(self._axes) and value.dim() > 1 and value.shape[1] == self.together:
            return value.flatten(0, 1)[:count]
        if self.together > 1:
            raise BadProgram("an output of the graph has no batch axis; export it with a batch of one")
        return value

    def _merged(self, value: Tensor, count: int) -> Tensor:
        """From groups x value inside the program to the value that a direct computation has."""
        if not any(self._axes) or value.dim() < 2:
            return value
        whole, rows = value.flatten(0, 1), value.shape[1]
        return whole if rows % self.together else whole[: count * (rows // self.together)]

    def _whole(self, value: Any, count: int) -> Any:
        """A value inside torch.vmap as an ordinary tensor of all samples."""
        if isinstance(value, list | tuple):
            return type(value)(self._whole(part, count) for part in value)
        if not isinstance(value, Tensor) or not aten.is_mapped(value):
            return value
        axis = torch._C._functorch.maybe_get_bdim(value)
        return self._merged(torch._C._functorch.get_unwrapped(value).movedim(axis, 0), count)

    def _joined(self, values: list[Any], count: int, *, varies: bool) -> Any:
        """Values of the same node for all groups, as one value of all samples. Those that do not vary are the same for all."""
        first = values[0]
        if isinstance(first, list | tuple):
            return type(first)(self._joined(list(parts), count, varies=varies) for parts in zip(*values, strict=True))
        if not isinstance(first, Tensor) or not varies or all(value is first for value in values[1:]):
            return first
        return self._merged(torch.stack(values), count)

    def _varies(self, argument: Argument) -> bool:
        """Whether an argument depends on the inputs."""
        if isinstance(argument, Ref):
            return argument.name in self._varying
        return isinstance(argument, Sequence) and not isinstance(argument, str) and any(map(self._varies, argument))

    @torch.no_grad()
    def _choose(self) -> Way:
        device = next((value.device for value in (*self.network.parameters(), *self.network.buffers())), torch.device("cpu"))
        inputs = [
            _random(port, sample, max(TRIED), seed).to(device)
            for seed, (port, sample) in enumerate(zip(self.program.inputs, self.samples, strict=True))
        ]
        ways: list[Way] = ["mapped"]
        if all(self._axes):
            ways.insert(0, "direct")
        try:
            expected = [self._run("one by one", [value[:count] for value in inputs], NOTHING) for count in TRIED]
        except (RuntimeError, TypeError, ValueError, IndexError, AssertionError, NotImplementedError) as error:
            notes = " ".join(getattr(error, "__notes__", []))
            raise BadProgram(
                f"torch can't compute the graph for samples of {_shapes(self.samples)}: {error} {notes}"
            ) from error
        for way in ways:
            try:
                given = [self._run(way, [value[:count] for value in inputs], NOTHING) for count in TRIED]
            except (RuntimeError, TypeError, ValueError, IndexError, AssertionError, NotImplementedError):
                continue
            if all(_equal(a, b) for a, b in zip(given, expected, strict=True)):
                return way
        return "one by one"


def default_sample(port: Port) -> tuple[int, ...]:
    """The shape of one sample if the first axis of an input is the batch axis. Raises BadProgram if an extent is free."""
    if not port.shape or any(extent is None for extent in port.shape[1:]):
        raise BadProgram(f"the input {port.name!r} has free extents; say which shape the samples have")
    return tuple(extent for extent in port.shape[1:] if extent is not None)


def batch_extent(port: Port, sample: Sequence[int]) -> int | None:
    """The batch extent of an input for samples of this shape: 0 if it is free, None if the input has no batch axis.

    Raises BadProgram if the samples do not fit.
    """
    if port.shape is None or (len(port.shape) == len(sample) + 1 and _fits(port.shape[1:], sample)):
        return port.shape[0] or 0 if port.shape else 0
    if _fits(port.shape, sample):
        return None
    wanted = " x ".join("any" if extent is None else str(extent) for extent in port.shape)
    raise BadProgram(f"the input {port.name!r} of the graph takes {wanted}, and the samples have the shape {_shapes([sample])}")


def _fits(extents: Sequence[int | None], sample: Sequence[int]) -> bool:
    return len(extents) == len(sample) and all(a in (None, b) for a, b in zip(extents, sample, strict=True))


def _random(port: Port, sample: Sequence[int], count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if port.dtype.startswith(("F", "BF")):
        return torch.randn((count, *sample), generator=generator)
    # Zeros and ones are valid indices of almost every table.
    return torch.randint(0, 2, (count, *sample), generator=generator).to(aten.to_dtype(port.dtype))


def _equal(given: Any, expected: Any) -> bool:
    pairs = [(given, expected)] if isinstance(expected, Tensor) else list(zip(given, expected, strict=True))
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=TOLERANCE * max(1.0, _largest(b)), equal_nan=True)
        for a, b in pairs
    )


def _largest(value: Tensor) -> float:
    largest = float(value.abs().max()) if value.numel() and value.is_floating_point() else 1.0
    return largest if math.isfinite(largest) else 1.0


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(port.name for port in ports)


def _shapes(samples: Sequence[Sequence[int]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) or "one number" for shape in samples)


@contextmanager
def _all_observed(network: GraphNetwork, observers: Sequence[Observer]) -> Iterator[None]:
    if not observers:
        yield
        return
    with network.observed(observers[0]), _all_observed(network, observers[1:]):
        yield


@contextmanager
def _without_warnings() -> Iterator[None]:
    # torch warns that an operator is slow where it has no batching rule. The result is right, and the rest is still fast.
    torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._functorch._set_vmap_fallback_warning_enabled(True)  # type: ignore[attr-defined]
