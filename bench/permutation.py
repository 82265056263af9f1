"""How fast are cross-filter permutations, and how smooth? All convolutions of ResNet-18.

python -m bench.permutation [--checkpoint FILE] [--nearest-up-to 65536] [--quick]

Without a checkpoint the kernels are normally distributed; their cosines are lower than those of a trained network. "nearest"
is the published nearest-neighbour path, computed exactly. Its time grows with the square of the number of kernels, so it is
measured on small layers only.
"""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from bench.fidelity import load
from bench.tables import Row, parser, progress, show
from nern.layers import StateDict, find_layers
from nern.permutation import mean_consecutive_cosine, permute
from nern.request.options import PathKind
from nern.tiles import Tiles


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--checkpoint", type=Path, help="a ResNet-18 that torch.save wrote")
    arguments.add_argument("--nearest-up-to", type=int, default=65_536, help="most kernels of a layer that it is measured on")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    state_dict = load(options.checkpoint) if options.checkpoint else normal()
    tiles = Tiles(find_layers(state_dict), "tiled")
    limit = 4096 if options.quick else options.nearest_up_to
    rows: list[Row] = []
    # Random layers of one shape differ by chance alone, so the nearest-neighbour path is measured on the first of each shape.
    seen: set[tuple[int, ...]] = set()
    for number, layer in enumerate(tiles.layers):
        kernels = tiles.cut(number, state_dict[layer.name]).reshape(layer.filters, tiles.per_filter[number], -1)
        seconds, cosine = measure(kernels, "fragments")
        row: Row = {"layer": layer.name, "kernels or tiles": tiles.count(number), "seconds": seconds, "cosine": cosine}
        if tiles.count(number) <= limit and (options.checkpoint or layer.shape not in seen):
            row["nearest: seconds"], row["nearest: cosine"] = measure(kernels, "nearest")
        else:
            row["nearest: seconds"], row["nearest: cosine"] = None, None
        seen.add(layer.shape)
        rows.append(row)
        progress.print(*row.values())
    rows.append(
        {
            "layer": "all",
            "kernels or tiles": len(tiles),
            "seconds": sum(row["seconds"] for row in rows),
            "cosine": sum(row["kernels or tiles"] * row["cosine"] for row in rows) / len(tiles),
            "nearest: seconds": None,
            "nearest: cosine": None,
        }
    )
    show(rows, "Cross-filter permutations of ResNet-18", options)


def measure(kernels: Tensor, path: PathKind) -> tuple[float, float]:
    """Seconds and mean consecutive cosine."""
    started = time.monotonic()
    position = permute(kernels, "cross-filter", path)
    return time.monotonic() - started, mean_consecutive_cosine(kernels, position)


def normal() -> StateDict:
    """A ResNet-18 whose convolutions are normally distributed."""
    network = resnet18(weights=None)
    return {
        f"{name}.weight": torch.randn_like(module.weight)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    }


if __name__ == "__main__":
    main()
