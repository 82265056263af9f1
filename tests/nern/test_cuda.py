from io import BytesIO
from typing import Any

import pytest
import torch

from nern.images import CPU, Images, Noise
from nern.training import (
    DecoupledConfig,
    PaperConfig,
    Progress,
    RegularisedConfig,
    train,
)
from nern.training.config import Config
from tests.support.networks import images, odd, resnet8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("config", "data"),
    [
        (DecoupledConfig(steps=12, hidden=8), images()),
        (DecoupledConfig(steps=12, hidden=8, bits=8), images()),
        (DecoupledConfig(steps=12, hidden=8, synthesised_images=1, synthesis_steps=2), Noise("matched", (3, 8, 8))),
        (RegularisedConfig(steps=12, hidden=8, smoothing_steps=2), images()),
        (PaperConfig(steps=4, hidden=8, image_batch=4), images()),
    ],
)
def test_training_on_a_cuda_device(config: Config, data: Images | Noise) -> None:
    arguments: dict[str, Any] = {"architecture": "cifar/resnet8", "data": data, "device": torch.device("cuda")}
    saved: list[Any] = []

    def save(progress: Progress) -> None:
        if progress.step == progress.steps - 1:
            torch.save(progress.snapshot(), file := BytesIO())
            saved.append(torch.load(BytesIO(file.getvalue()), map_location="cpu", weights_only=True))

    trained = train(resnet8(), config, on_progress=save, **arguments)
    resumed = train(resnet8(), config, snapshot=saved[0], **arguments)
    assert resumed.last.rank == pytest.approx(trained.last.rank, rel=1e-2)
    assert trained.representation.device == CPU
    assert trained.evaluator is not None
    layers = trained.representation.layers
    rebuilt = dict(zip([layer.name for layer in layers], trained.representation.render_all(), strict=True))
    assert trained.evaluator.compare(rebuilt).divergence == pytest.approx(trained.best.rank, rel=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_kind_of_layer_can_be_trained_on_a_cuda_device() -> None:
    assert train(odd(), DecoupledConfig(steps=60, hidden=32), device=torch.device("cuda")).last.relative_error < 0.3
