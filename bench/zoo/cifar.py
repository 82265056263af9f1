"""Networks that others have trained on CIFAR-10, as examples beside the networks that the benchmark trains."""

from functools import cache, partial
from pathlib import Path

from torch import Tensor, nn

from bench.fidelity import FILES, load, read_images
from bench.zoo.networks import Example
from bench.zoo.tasks import Task, accuracy, cross_entropy
from nern.architectures import build


def examples(checkpoints: Path, images: Path) -> dict[str, Example]:
    """The networks in the folder of checkpoints, and CIFAR-10. The folders are those of bench.fidelity."""
    task = cache(lambda: classification(images))
    return {
        name: Example("residual", partial(_network, name, checkpoints / file), task, trained=True)
        for name, file in FILES.items()
    }


def _network(architecture: str, file: Path) -> nn.Module:
    return build(architecture, load(file))


def classification(folder: Path) -> Task:
    """CIFAR-10, normalised as the networks of bench.fidelity expect."""
    inputs, targets = _labelled(folder, "cifar10-train-*.npz")
    test_inputs, test_targets = _labelled(folder, "cifar10-test.npz")
    return Task((inputs,), targets, (test_inputs,), test_targets, cross_entropy, accuracy, "% accuracy", "classes")


def _labelled(folder: Path, pattern: str) -> tuple[Tensor, Tensor]:
    images = read_images(sorted(folder.glob(pattern)))
    assert images.labels_N is not None
    return images.normalised(images.pixels_NHWC).contiguous(), images.labels_N
