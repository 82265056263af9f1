"""What can replace the training images? The same predictor is distilled on inputs of each source, and on none.

python -m bench.sources --checkpoints FOLDER --images FOLDER [--source NAME ...] [--ratio 0.415] [--quick]

The folders are those of bench.fidelity. Accuracies are measured on all CIFAR-10 test images. "photos" are 4,000 crops, of many
sizes, of two photographs that come with scikit-learn. They show nothing that the network was trained on.
"""

from pathlib import Path
from typing import cast, get_args

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor

from bench.fidelity import FILES, MEAN, STD, load, measure, read_images
from bench.tables import DEVICE_NAME, Row, parser, progress, show
from nern import architectures
from nern.images import Images, Noise
from nern.randomness import generator
from nern.request import DecoupledRequest
from nern.request.options import NoiseKind

SOURCES = ("none", *get_args(NoiseKind), "photos", "training images")

ARCHITECTURE = "cifar/resnet20"

CONFIG = DecoupledRequest(steps=1200, reconstruction_steps=1000)

QUICK = {"steps": 250, "reconstruction_steps": 200, "synthesised_images": 256, "synthesis_steps": 25}

QUICK_SOURCES = ("none", "matched", "photos")

CROPS = 4000


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--checkpoints", type=Path, required=True)
    arguments.add_argument("--images", type=Path, required=True)
    arguments.add_argument("--source", nargs="+", choices=SOURCES, metavar="NAME", help=", ".join(SOURCES))
    arguments.add_argument("--ratio", type=float, default=0.415, help="parameters of the predictor / represented weights")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    state_dict = load(options.checkpoints / FILES[ARCHITECTURE])
    shape = architectures.input_shape(ARCHITECTURE, architectures.shapes_of(state_dict))
    test = read_images(sorted(options.images.glob("cifar10-test.npz")))
    config = CONFIG.with_values({"seed": options.seed, "ratio": options.ratio} | (QUICK if options.quick else {}))
    rows: list[Row] = []
    for name in options.source or (QUICK_SOURCES if options.quick else SOURCES):
        data = source(name, options.images, shape, options.seed)
        rows.append({"source": name, **measure(ARCHITECTURE, state_dict, config, data, test)})
        progress.print(rows[-1])
    show(rows, "Accuracy in percent, time in minutes", options, device=DEVICE_NAME)


def source(name: str, folder: Path, shape: tuple[int, ...], seed: int) -> Images | Noise | None:
    """The inputs that a training distils on."""
    if name == "none":
        return None
    if name == "photos":
        return photos(shape[1], seed)
    if name == "training images":
        return read_images(sorted(folder.glob("cifar10-train-*.npz")))
    return Noise(cast(NoiseKind, name), shape)


def photos(size: int, seed: int) -> Images:
    """Random square crops of two photographs, of at least size x size pixels, scaled to size x size."""
    pictures = [torch.from_numpy(picture) for picture in load_sample_images().images]
    rng = generator(seed, "photos")

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def crop() -> Tensor:
        picture = pictures[draw(0, len(pictures) - 1)]
        height, width = picture.shape[:2]
        extent = draw(size, min(height, width))
        top, left = draw(0, height - extent), draw(0, width - extent)
        square = picture[top : top + extent, left : left + extent].movedim(-1, 0)[None].float()
        return F.interpolate(square, size=(size, size), mode="area")[0].movedim(0, -1).round().byte()

    return Images(torch.stack([crop() for _ in range(CROPS)]), None, MEAN, STD)


if __name__ == "__main__":
    main()
