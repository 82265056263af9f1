"""Does every torchvision classification network come back from an artefact?

python -m bench.architectures [NAME ...] [--permuted-up-to 2000000] [--quick]

Each network has random weights and is trained for two steps. Its artefact is written to a file and read, and the rebuilt
state_dict is loaded strictly. Networks with many tiles are not permuted, since that takes minutes; the table says which.
--quick permutes fewer networks, and leaves out those of more than 30 million parameters. The command fails if a network does
not come back.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torchvision
from torch import nn

from bench.tables import Row, parser, progress, show
from nern import architectures, artefact
from nern.artefact import Artefact
from nern.layers import StateDict, find_layers
from nern.network import Network
from nern.request import DecoupledRequest
from nern.tiles import Tiles
from nern.training import train

QUICK_PARAMETERS = 30_000_000
QUICK_PERMUTED = 100_000


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="networks by name; default: all")
    arguments.add_argument("--permuted-up-to", type=int, default=2_000_000, help="most tiles of a network that is permuted")
    options = arguments.parse_args()
    permuted = min(options.permuted_up_to, QUICK_PERMUTED) if options.quick else options.permuted_up_to
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name in options.names or torchvision.models.list_models(module=torchvision.models):
        torch.manual_seed(options.seed)
        network = random(name)
        if options.quick and sum(parameter.numel() for parameter in network.parameters()) > QUICK_PARAMETERS:
            continue
        rows.append({"network": name, **round_trip(name, network, options.seed, permuted)})
        progress.print(*rows[-1].values())
    show(rows, f"{len(rows)} networks: train, store, rebuild, strict load", options)
    sys.exit(any(row["comes back"] != "yes" for row in rows))


def round_trip(name: str, network: nn.Module, seed: int, permuted: int) -> dict[str, Any]:
    """The row of one network; its tiles are permuted if there are at most `permuted`."""
    state_dict: StateDict = network.state_dict()
    layers = find_layers(state_dict)
    few = len(Tiles(layers, "tiled")) <= permuted
    config = DecoupledRequest(steps=2, hidden=16, seed=seed, permutation="cross-filter" if few else "none")
    started = time.monotonic()
    trained = train(Network(state_dict), config)
    training = time.monotonic() - started
    with TemporaryDirectory() as folder:
        path = Path(folder) / "artefact.safetensors"
        pieces, nbytes = artefact.write(trained.representation, state_dict, architecture=f"torchvision/{name}")
        with path.open("wb") as file:
            file.writelines(pieces)
        started = time.monotonic()
        rebuilt = Artefact(lambda start, stop: read(path, start, stop)).state_dict()
        rendering = time.monotonic() - started
    return {
        "weights": sum(layer.weights for layer in layers),
        "tiles": len(trained.representation.tiles),
        "heads": len(trained.representation.tiles.heads),
        "permutation": config.permutation,
        "training, s": training,
        "rebuilding, s": rendering,
        "artefact, MB": nbytes.total / 1e6,
        "comes back": verdict(name, network, state_dict, rebuilt, {layer.name for layer in layers}),
    }


def verdict(name: str, network: nn.Module, state_dict: StateDict, rebuilt: StateDict, represented: set[str]) -> str:
    """ "yes", or what is wrong."""
    if f"torchvision/{name}" not in architectures.recognise(architectures.shapes_of(state_dict)):
        return "not recognised"
    for key, tensor in state_dict.items():
        if key not in rebuilt or (rebuilt[key].shape, rebuilt[key].dtype) != (tensor.shape, tensor.dtype):
            return f"{key} has another shape or dtype"
        if key not in represented and not torch.equal(rebuilt[key], tensor):
            return f"{key} is kept, but has changed"
    # Some networks read the metadata that only a dict from `state_dict()` has.
    own = network.state_dict()
    own.clear()
    own.update(rebuilt)
    network.load_state_dict(own, strict=True)
    return "yes"


def random(name: str) -> nn.Module:
    """The network with random weights, without the initialisations that take minutes."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return network


def read(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


if __name__ == "__main__":
    main()
