"""Training of the networks of the zoo, before they are represented."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from bench.zoo.tasks import Outputs, Task

BATCH = 64


def fit(network: nn.Module, task: Task, *, steps: int, learning_rate: float, seed: int) -> nn.Module:
    """Trains a network with AdamW and a cosine schedule, and returns it in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    network.train()
    for rows in islice(_batches(len(task.targets), generator), steps):
        loss = task.loss(outputs(network, *(part[rows] for part in task.inputs)), task.targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """The numbers of the inputs of each batch, in a new order for each pass through the inputs. Never ends."""
    while True:
        yield from torch.randperm(count, generator=generator)[: count // BATCH * BATCH].split(BATCH)


@torch.no_grad()
def measure(network: nn.Module, task: Task) -> float:
    """The quality of a network on the test set of its task."""
    parts = [part.split(256) for part in task.test_inputs]
    batches = [outputs(network, *batch) for batch in zip(*parts, strict=True)]
    return task.quality(tuple(torch.cat(output) for output in zip(*batches, strict=True)), task.test_targets)


def outputs(network: nn.Module, *inputs: Tensor) -> Outputs:
    """The outputs of a network as a tuple."""
    result = network(*inputs)
    return result if isinstance(result, tuple) else (result,)
