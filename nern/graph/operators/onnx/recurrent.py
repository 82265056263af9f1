"""Recurrent layers. Weights have an axis for the directions, then the gates one below the other.

Each layer runs as a loop over time: torch's own layers take weights in another order, and can't run under torch.vmap.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.registry import operator

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Tensor, Tensor], State]
"""From the input's share of the gates, the state, the recurrent weight and its bias to the next state."""


def _run(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None,
    initial: Sequence[Tensor | None],
    direction: str,
    layout: int,
    cell: Callable[[int], Cell],
) -> list[Tensor]:
    """All hidden states of all directions, then the last of each state. `cell` gives the cell of a direction."""
    if layout:
        x = x.transpose(0, 1)
        initial = [None if one is None else one.transpose(0, 1) for one in initial]
    directions, gates, size = recurrent.shape
    if bias is None:
        bias = torch.zeros(directions, 2 * gates, dtype=x.dtype, device=x.device)
    hidden, last = [], []
    for number in range(directions):
        backwards = direction == "reverse" or number == 1
        inputs = F.linear(x.flip(0) if backwards else x, weight[number], bias[number, :gates])
        # The zeros of a state follow from the input, so that they have its device and, under torch.vmap, its batch.
        zeros = torch.zeros_like(inputs[0][:, :size])
        state: State = tuple(zeros if one is None else one[number].to(x.device) for one in initial)
        steps = []
        step_cell = cell(number)
        for step in inputs.unbind(0):
            state = step_cell(step, state, recurrent[number], bias[number, gates:])
            steps.append(state[0])
        hidden.append(torch.stack(steps[::-1] if backwards else steps))
        last.append(state)
    output = torch.stack(hidden, 1)
    finals = [torch.stack(states) for states in zip(*last, strict=True)]
    if layout:
        return [output.permute(2, 0, 1, 3), *(final.transpose(0, 1) for final in finals)]
    return [output, *finals]


@operator("onnx.LSTM")
def lstm(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    sequence_lens: None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    *,
    hidden_size: int | None = None,
    direction: str = "forward",
    layout: int = 0,
) -> tuple[Tensor, ...]:
    def cell(inputs: Tensor, state: State, recurrent: Tensor, bias: Tensor) -> State:
        hidden, memory = state
        i, o, f, c = (inputs + F.linear(hidden, recurrent, bias)).chunk(4, -1)
        memory = f.sigmoid() * memory + i.sigmoid() * c.tanh()
        return o.sigmoid() * memory.tanh(), memory

    return tuple(_run(x, weight, recurrent, bias, (initial_h, initial_c), direction, layout, lambda _: cell))


@operator("onnx.GRU")
def gru(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    sequence_lens: None = None,
    initial_h: Tensor | None = None,
    *,
    hidden_size: int | None = None,
    direction: str = "forward",
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    def cell(inputs: Tensor, state: State, recurrent: Tensor, bias: Tensor) -> State:
        (hidden,) = state
        size = hidden.shape[-1]
        update, reset = (
            (inputs[:, : 2 * size] + F.linear(hidden, recurrent[: 2 * size], bias[: 2 * size])).sigmoid().chunk(2, -1)
        )
        if linear_before_reset:
            share = reset * F.linear(hidden, recurrent[2 * size :], bias[2 * size :])
        else:
            share = F.linear(reset * hidden, recurrent[2 * size :], bias[2 * size :])
        new = (inputs[:, 2 * size :] + share).tanh()
        return ((1 - update) * new + update * hidden,)

    return tuple(_run(x, weight, recurrent, bias, (initial_h,), direction, layout, lambda _: cell))


@operator("onnx.RNN")
def rnn(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    sequence_lens: None = None,
    initial_h: Tensor | None = None,
    *,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    hidden_size: int | None = None,
    direction: str = "forward",
    layout: int = 0,
) -> tuple[Tensor, ...]:
    def cell(number: int) -> Cell:
        activation = torch.relu if activations[number].lower() == "relu" else torch.tanh

        def step(inputs: Tensor, state: State, recurrent: Tensor, bias: Tensor) -> State:
            return (activation(inputs + F.linear(state[0], recurrent, bias)),)

        return step

    return tuple(_run(x, weight, recurrent, bias, (initial_h,), direction, layout, cell))
