"""How fast are weights rendered, on the CPU and on a GPU?

python -m bench.rendering --checkpoints FOLDER [--network NAME ...] [--ratio 0.75] [--quick]

A network is one of bench.fidelity, or has random weights and a name of torchvision. Its predictor has `ratio` parameters for
each weight, in half precision. The predictor is not trained: the time does not depend on the values. A weight takes time in
proportion to the parameters, so a network of ten times as many weights takes a hundred times as long.

"layers" renders layer by layer in fixed blocks, as the service does; "at once" renders in the batches of a training, whose last
bits are not reproducible. Both times include the copy to the memory of the CPU. "a block" is the time of one block, of the
largest layer of the network. All times are medians.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torchvision

from bench.fidelity import FILES, load
from bench.tables import DEVICE, DEVICE_NAME, Row, parser, progress, show
from nern.images import CPU
from nern.layers import StateDict
from nern.network import Network
from nern.plan import Plan
from nern.planning import make_plan
from nern.rendering import render_block, render_layer
from nern.representation import Representation
from nern.request import DecoupledRequest

# So long is one thing measured again and again, at least once.
SECONDS = 2.0


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--checkpoints", type=Path, required=True)
    arguments.add_argument("--network", nargs="+", default=list(FILES), metavar="NAME", help=f"{', '.join(FILES)}, resnet18, …")
    arguments.add_argument("--ratio", type=float, default=0.75)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    names = options.network[:1] if options.quick else options.network
    rows: list[Row] = []
    for name in names:
        representation = untrained(read(name, options.checkpoints, options.seed), options.ratio)
        for device in [CPU] if DEVICE == CPU else [CPU, DEVICE]:
            rows.append({"network": name, **measure(representation.to(device))})
            progress.print(rows[-1])
    show(rows, "Rendering of all represented weights", options, device=DEVICE_NAME)


def read(name: str, checkpoints: Path, seed: int) -> StateDict:
    """The weights of a network."""
    if name in FILES:
        return load(checkpoints / FILES[name])
    torch.manual_seed(seed)
    return dict(torchvision.models.get_model(name).state_dict())


def untrained(state_dict: StateDict, ratio: float) -> Representation:
    """A representation of all convolutions of a network, with a predictor as the service stores it."""
    network = Network(state_dict)
    plan = make_plan(DecoupledRequest(ratio=ratio, permutation="none"), network.facts, None)
    assert isinstance(plan, Plan)
    tiles = plan.tiles()
    positions = [torch.arange(tiles.count(layer)) for layer in range(len(tiles.layers))]
    made = Representation.untrained(
        tiles,
        network.weights,
        plan.predictor,
        permutation="none",
        positions=positions,
        layer_scaling=plan.request.layer_scaling,
    )
    made.predictor.halve()
    return made


def measure(representation: Representation) -> Row:
    """The row of one network on one device."""
    layers = range(len(representation.layers))
    sizes = [layer.weights for layer in representation.layers]
    largest = sizes.index(max(sizes))
    block = median(lambda: [render_block(representation, largest, 0).cpu()])
    by_layer = median(lambda: [render_layer(representation, layer).cpu() for layer in layers])
    at_once = median(lambda: [weight.cpu() for weight in representation.render_all()])
    return {
        "device": representation.device.type,
        "hidden": representation.predictor.config.hidden,
        "weights": sum(sizes),
        "s, layers": by_layer,
        "MB/s, layers": 4 * sum(sizes) / by_layer / 1e6,
        "s, at once": at_once,
        "MB/s, at once": 4 * sum(sizes) / at_once / 1e6,
        "ms, a block": 1000 * block,
    }


def median(render: Callable[[], Sequence[torch.Tensor]]) -> float:
    """The median time of calls in seconds. The first call is not counted, unless it is the only one."""
    times: list[float] = []
    while sum(times) < SECONDS:
        started = time.perf_counter()
        render()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:] or times)


if __name__ == "__main__":
    main()
