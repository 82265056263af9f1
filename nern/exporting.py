"""From a person's own network to a file that the service takes: `nern.export`. It runs on the machine of that person."""

import warnings
from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from nern.errors import BadProgram
from nern.graph import exported
from nern.graph.interpreter import GraphNetwork
from nern.graph.program import Program

TOLERANCE = 1e-4


class Export(NamedTuple):
    """What was written.

    any_batch: whether the program takes any number of samples. difference: the largest difference to the network's outputs.
    """

    program: Program
    any_batch: bool
    difference: float


def export(module: nn.Module, example_inputs: Sequence[Tensor] | Tensor, path: str | PathLike[str] | BinaryIO) -> Export:
    """Writes a network as a `.pt2` file, to be uploaded as a checkpoint. The names of its tensors are those of its state_dict.

    module: the network. It is exported in eval mode, and keeps the mode that it has.
    example_inputs: a tensor, or a tuple of tensors, as `module` takes them, with a batch axis in front. The values are free.
    path: where to write, or a file that is open for writing.

    The program takes any number of samples where torch.export can do that, and else the number that the example has; the
    service runs both for any number. The program is computed as the service computes it, and compared with the network. Raises
    BadProgram if torch can't export the network, if the service does not support one of its operators, or if the outputs
    differ.
    """
    if not isinstance(module, nn.Module):
        raise BadProgram(f"{type(module).__name__} is no network; give the module itself, not its state_dict or its class")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(value, Tensor) for value in inputs):
        raise BadProgram("the example inputs are not tensors; give a tensor, or a tuple of tensors as the network takes them")
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            expected = _outputs(module, inputs)
        content, written = _exported(module, inputs, expected)
    finally:
        for part, training in modes:
            part.training = training
    if isinstance(path, str | PathLike):
        Path(path).write_bytes(content)
    else:
        path.write(content)
    return written


def _exported(module: nn.Module, inputs: tuple[Tensor, ...], expected: Sequence[Tensor]) -> tuple[bytes, Export]:
    refused: list[Exception] = []
    batched = all(value.dim() > 0 for value in inputs)
    for any_batch in (True, False) if batched else (False,):
        try:
            content = _saved(module, inputs, any_batch=any_batch)
            read = exported.read(BytesIO(content), _nothing_pickled)
            if (difference := _difference(read, inputs, expected)) > TOLERANCE:
                raise BadProgram(f"the program computes other outputs than the network; they differ by {difference:.2g}")
            return content, Export(read.program, any_batch, difference)
        except BadProgram as error:
            refused.append(error)
        except Exception as error:  # torch.export raises whatever the network's code raises
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            refused.append(BadProgram(f"torch can't export the network: {reason}"))
    # The context is the trace of torch.export, which hides the message below many lines.
    raise refused[-1] from None


def _outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    try:
        return _flat(module(*inputs))
    except Exception as error:  # the network's code raises what it likes
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise BadProgram(
            f"the network can't take example inputs of the shape {shapes}: {error}. Has every input a batch axis in front?"
        ) from error


def _saved(module: nn.Module, inputs: tuple[Tensor, ...], *, any_batch: bool) -> bytes:
    shapes = None
    if any_batch:
        # With one sample, torch would take the batch extent for a constant.
        inputs = tuple(torch.cat([value, value]) if len(value) == 1 else value for value in inputs)
        shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    buffer = BytesIO()
    with warnings.catch_warnings():
        # They are about the attributes of torch's own recurrent layers, and about releases to come.
        warnings.simplefilter("ignore")
        program = torch.export.export(module, inputs, dynamic_shapes=shapes)
        # Without changes in place. Nothing is decomposed.
        program = program.run_decompositions({})
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _difference(program: exported.Exported, inputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference between the outputs, relative to the largest output where that is above 1."""
    network = GraphNetwork(program.program, program.state_dict).to(inputs[0].device)
    with torch.no_grad():
        given = _flat(network(*inputs))
    if [tuple(value.shape) for value in given] != [tuple(value.shape) for value in expected]:
        return float("inf")
    return max(
        float((a.double() - b.double()).abs().max()) / max(1.0, float(b.double().abs().max())) if b.numel() else 0.0
        for a, b in zip(given, expected, strict=True)
    )


def _flat(outputs: Any) -> list[Tensor]:
    """The tensors among the outputs of a module, in the order of torch.export."""
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _nothing_pickled(file: BinaryIO) -> dict[str, Tensor]:
    raise BadProgram("the installed torch saves weights as pickles; install torch 2.9 or later")
