from dataclasses import replace
from io import BytesIO
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from nern.images import Images, Noise
from nern.layers import StateDict
from nern.training import (
    DecoupledConfig,
    Progress,
    read_config,
    train,
)
from nern.training.config import AccuracyTarget
from tests.support.networks import images, resnet8


@pytest.mark.parametrize("data", [images(), Noise("normal", (3, 8, 8))])
def test_a_seed_decides_everything(data: Images | Noise) -> None:
    def weights(seed: int) -> Tensor:
        config = DecoupledConfig(steps=12, hidden=8, seed=seed)
        trained = train(resnet8(), config, architecture="cifar/resnet8", data=data)
        return torch.cat([parameter.flatten() for parameter in trained.representation.predictor.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("recipe", "data", "at"),
    [
        ("decoupled", images(), 5),
        ("decoupled", images(), 10),
        ("decoupled", images(), 12),
        ("decoupled", images(), 13),
        ("decoupled", images(), 14),
        ("decoupled", images(), 15),
        ("decoupled", Noise("matched", (3, 8, 8)), 1),
        ("decoupled", Noise("matched", (3, 8, 8)), 15),
        ("regularised", images(), 1),
        ("regularised", images(), 5),
        ("paper", images(), 5),
        ("paper", images(), 12),
    ],
)
def test_a_training_goes_on_from_a_snapshot_bit_for_bit(recipe: str, data: Images | Noise, at: int) -> None:
    given: dict[str, Any] = {"steps": 16, "reconstruction_steps": 10, "hidden": 8, "image_batch": 4, "kernel_batch": 3000}
    given |= {"synthesis_steps": 2, "synthesised_images": 1}
    given |= {"smoothing_steps": 3} if recipe == "regularised" else {}
    config = read_config({"recipe": recipe, **given} | ({} if recipe == "paper" else {"bits": 4, "compression_steps": 3}))
    saved = BytesIO()

    def save(progress: Progress) -> None:
        if progress.step == at:
            torch.save(progress.snapshot(), saved)

    arguments: dict[str, Any] = {"architecture": "cifar/resnet8", "data": data}
    with patch("nern.training.loop.MIN_INTERVAL", 2):
        whole = train(resnet8(), config, on_progress=save, **arguments)
        saved.seek(0)
        steps: list[int] = []
        snapshot = torch.load(saved, weights_only=True)
        train(resnet8(), config, snapshot=snapshot, **arguments)
        resumed = train(
            resnet8(), config, on_progress=lambda progress: steps.append(progress.step), snapshot=snapshot, **arguments
        )
    assert steps == list(range(at + 1, steps[-1] + 1))
    assert (resumed.best, resumed.last) == (whole.best, whole.last)
    for name, tensor in whole.representation.predictor.state_dict().items():
        assert torch.equal(resumed.representation.predictor.state_dict()[name], tensor)


OTHER_PIXELS = replace(images(), pixels_NHWC=255 - images().pixels_NHWC)


OTHER_LABELS = replace(images(), labels_N=None)


@pytest.mark.parametrize(
    ("network", "config", "data"),
    [
        (resnet8(), DecoupledConfig(steps=1, hidden=9), images()),
        (resnet8(seed=1), DecoupledConfig(steps=1, hidden=8), images()),
        (resnet8() | {"bn1.bias": torch.ones(16)}, DecoupledConfig(steps=1, hidden=8), images()),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), OTHER_PIXELS),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), OTHER_LABELS),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), Noise("matched", (3, 8, 8))),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), None),
        (resnet8(), DecoupledConfig(steps=1, target=AccuracyTarget(drop=1.0)), images()),
    ],
    ids=["width", "represented weights", "kept tensors", "images", "labels", "noise", "no data", "target"],
)
def test_a_snapshot_of_another_training_is_refused(
    network: StateDict, config: DecoupledConfig, data: Images | Noise | None
) -> None:
    snapshots = []

    def save(progress: Progress) -> None:
        snapshots.append(progress.snapshot())

    train(resnet8(), DecoupledConfig(steps=1, hidden=8), architecture="cifar/resnet8", data=images(), on_progress=save)
    with pytest.raises(ValueError, match="another training"):
        train(network, config, architecture="cifar/resnet8", data=data, snapshot=snapshots[0])
