"""How should kernels of few weights be predicted: several channels at a time, or each as the centre of a large kernel?

python -m bench.tiles --images FOLDER [--epochs 4] [--steps 2000] [--quick]

A small network of 1x1, depthwise 3x3 and 5x5 convolutions is trained on the images (cifar10-train-*.npz) and tested on
cifar10-test.npz. It is then represented in each way with the same bytes of predictor + permutation, by reconstruction alone.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.fidelity import accuracy, read_images
from bench.tables import Row, parser, progress, show
from nern import artefact, ranking
from nern.artefact import Artefact
from nern.images import Images
from nern.layers import find_layers
from nern.network import Network
from nern.randomness import generator
from nern.request import DecoupledRequest
from nern.request.options import PermutationKind, SmallKernels
from nern.tiles import Tiles
from nern.training import train

WAYS: list[tuple[SmallKernels, PermutationKind]] = [
    ("tiled", "cross-filter"),
    ("tiled", "none"),
    ("cropped", "cross-filter"),
    ("cropped", "none"),
]

# Bytes of predictor + permutation / bytes of the represented weights.
SHARE = 0.6


class Block(nn.Module):
    """An inverted residual (Sandler et al., arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int, size: int) -> None:
        super().__init__()
        middle = 4 * inputs
        self.expand, self.bn1 = nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.depthwise = nn.Conv2d(middle, middle, size, stride, size // 2, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.project, self.bn3 = nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = F.relu6(self.bn1(self.expand(x_BCHW)))
        out = F.relu6(self.bn2(self.depthwise(out)))
        out = self.bn3(self.project(out))
        return x_BCHW + out if self.residual else out  # type: ignore[no-any-return]  # nn.Module calls are untyped


def network() -> nn.Module:
    """About 190,000 convolution weights, nine of ten in 1x1 kernels."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
        Block(24, 24, 1, 3), Block(24, 40, 2, 5), Block(40, 40, 1, 3), Block(40, 80, 2, 5), Block(80, 80, 1, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(80, 10),
    )  # fmt: skip


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=Path, required=True)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--steps", type=int, default=2000)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    epochs, steps = (1, 300) if options.quick else (options.epochs, options.steps)
    test = read_images(sorted(options.images.glob("cifar10-test.npz")))
    torch.manual_seed(options.seed)
    original = network()
    fit(original, read_images(sorted(options.images.glob("cifar10-train-*.npz"))), epochs, options.seed)
    top = accuracy(original.eval(), test)
    rows: list[Row] = []
    for small, permutation in WAYS:
        row = represent(original, small, permutation, steps, options.seed, test)
        rows.append({"small kernels": small, "permutation": permutation, **row, "original": top})
        progress.print(rows[-1])
    show(rows, f"1x1 and depthwise kernels after {steps} steps of reconstruction", options)


def represent(
    original: nn.Module, small: SmallKernels, permutation: PermutationKind, steps: int, seed: int, test: Images
) -> Row:
    """The row of one way to predict small kernels."""
    state_dict = original.state_dict()
    request = DecoupledRequest(small_kernels=small, permutation=permutation, steps=steps, seed=seed)
    tiles = Tiles(find_layers(state_dict), small)
    weights = sum(layer.weights for layer in tiles.layers)
    indices = sum(ranking.nbytes(1, tiles.count(number)) for number in range(len(tiles.layers))) / 4 / weights
    share = SHARE - (indices if permutation == "cross-filter" else 0)
    if share <= 0:
        return {"hidden": None, "artefact": indices, "relative error": None, "accuracy": None, "seconds": None}
    # A parameter is stored in two bytes, a weight in four.
    started = time.monotonic()
    trained = train(Network(state_dict), request.with_values({"ratio": 2 * share}))
    seconds = time.monotonic() - started
    pieces, nbytes = artefact.write(trained.representation, state_dict)
    content = b"".join(pieces)
    rebuilt = network()
    rebuilt.load_state_dict(Artefact(lambda start, stop: content[start:stop]).state_dict())
    return {
        "hidden": trained.plan.predictor.hidden,
        "artefact": (nbytes.predictor + nbytes.permutation) / (4 * weights),
        "relative error": trained.best.relative_error,
        "accuracy": accuracy(rebuilt.eval(), test),
        "seconds": seconds,
    }


def fit(network: nn.Module, images: Images, epochs: int, seed: int) -> None:
    """Trains a classifier."""
    assert images.labels_N is not None
    steps = epochs * (len(images) // 128)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    network.train()
    for inputs, labels in batches(images, steps, seed):
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
        schedule.step()


def batches(images: Images, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images with their labels, mirrored half of the time."""
    assert images.labels_N is not None
    for step in range(steps):
        rng = generator(seed, "classifier", step)
        chosen = torch.randint(len(images), (128,), generator=rng)
        inputs = images.normalised(images.pixels_NHWC[chosen])
        yield (inputs.flip(3) if step % 2 else inputs), images.labels_N[chosen]


if __name__ == "__main__":
    main()
