"""Recurrent networks step by step, from operators that torch.vmap knows. torch's own can't be batched by it."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

States = tuple[Tensor, ...]
Cell = Callable[[Tensor, States, Sequence[Tensor | None]], States]
"""One step: from the projected input, the states and the weights (hidden weight, hidden bias, projection) to the new states."""


def _lstm(gates: Tensor, states: States, weights: Sequence[Tensor | None]) -> States:
    hidden, bias, projection = weights
    h, c = states
    assert hidden is not None
    i, f, g, o = (gates + F.linear(h, hidden, bias)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h if projection is None else F.linear(h, projection), c


def _gru(gates: Tensor, states: States, weights: Sequence[Tensor | None]) -> States:
    hidden, bias, _ = weights
    (h,) = states
    assert hidden is not None
    reset, update, new = gates.chunk(3, -1)
    hidden_reset, hidden_update, hidden_new = F.linear(h, hidden, bias).chunk(3, -1)
    z = torch.sigmoid(update + hidden_update)
    n = torch.tanh(new + torch.sigmoid(reset + hidden_reset) * hidden_new)
    return ((1 - z) * n + z * h,)


def _elman(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(gates: Tensor, states: States, weights: Sequence[Tensor | None]) -> States:
        hidden, bias, _ = weights
        assert hidden is not None
        return (activation(gates + F.linear(states[0], hidden, bias)),)

    return cell


CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _elman(torch.tanh), "rnn_relu": _elman(torch.relu)}


GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def validate(
    kind: str,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> None:
    """Raises ValueError for shapes that do not fit. torch's own functions do not look, and read outside of the tensors."""
    directions = 2 if bidirectional else 1
    cells = layers * directions
    each = len(parameters) // max(cells, 1)
    expected = {4, 5} if has_biases and kind == "lstm" else {4} if has_biases else {2, 3} if kind == "lstm" else {2}
    if len(states) != (2 if kind == "lstm" else 1) or each not in expected or len(parameters) != each * cells or x.dim() != 3:
        raise ValueError(f"a recurrent network has {len(parameters)} weights, {len(states)} states and {x.dim()} axes")
    width, batch = x.shape[2], x.shape[0 if batch_first else 1]
    for number in range(cells):
        own = parameters[number * each : (number + 1) * each]
        hidden = own[0].shape[0] // GATES[kind]
        projected = own[-1].shape[0] if each in (3, 5) else hidden
        if number % directions == 0 and number > 0:
            width = projected * directions
        wanted: list[tuple[int, ...]] = [(GATES[kind] * hidden, width), (GATES[kind] * hidden, projected)]
        wanted += [(GATES[kind] * hidden,)] * 2 if has_biases else []
        wanted += [(projected, hidden)] if each in (3, 5) else []
        outputs = [(cells, batch, projected), (cells, batch, hidden)][: len(states)]
        if [tuple(weight.shape) for weight in own] != wanted or [tuple(state.shape) for state in states] != outputs:
            raise ValueError("the weights or the states of a recurrent network have shapes that do not fit its input")
        if any(value.dtype != x.dtype or value.device != x.device for value in (*own, *states)):
            raise ValueError("the weights or the states of a recurrent network have another dtype or device than its input")


def unrolled(
    kind: str,
    x: Tensor,
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """What torch.lstm, torch.gru, torch.rnn_tanh and torch.rnn_relu compute in evaluation mode: outputs and last states.

    x: time x batch x features, or batch x time x features with `batch_first`.
    states: (layers * directions) x batch x hidden each.
    parameters: for each layer and direction, input weight, hidden weight, their biases if `has_biases`, perhaps a projection.
    """
    directions = 2 if bidirectional else 1
    each = len(parameters) // (layers * directions)
    if batch_first:
        x = x.transpose(0, 1)
    last: list[States] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            own: list[Tensor | None] = list(parameters[number * each : (number + 1) * each])
            projection = own.pop() if each in (3, 5) else None
            w_input, w_hidden, b_input, b_hidden = own if has_biases else (*own, None, None)
            assert w_input is not None
            steps = list(F.linear(x, w_input, b_input).unbind(0))
            now = tuple(state[number] for state in states)
            made = []
            for gates in reversed(steps) if direction else steps:
                now = CELLS[kind](gates, now, (w_hidden, b_hidden, projection))
                made.append(now[0])
            outputs.append(torch.stack(made[::-1] if direction else made))
            last.append(now)
        x = torch.cat(outputs, -1)
    if batch_first:
        x = x.transpose(0, 1)
    return x, *(torch.stack(parts) for parts in zip(*last, strict=True))
