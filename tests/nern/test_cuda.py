from pathlib import Path
from typing import Any

import pytest
import torch

from nern.images import CPU, Images, Noise
from nern.network import Network
from nern.request import DecoupledRequest, PaperRequest, RegularisedRequest, TrainingRequest
from nern.training import Progress, Snapshot, train
from tests.support.networks import images, odd, resnet8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("config", "data"),
    [
        (DecoupledRequest(steps=12, hidden=8), images()),
        (DecoupledRequest(steps=12, hidden=8, bits=8), images()),
        (DecoupledRequest(steps=12, hidden=8, synthesised_images=1, synthesis_steps=2), Noise("matched", (3, 8, 8))),
        (RegularisedRequest(steps=12, hidden=8, smoothing_steps=2), images()),
        (PaperRequest(steps=4, hidden=8, image_batch=4), images()),
    ],
)
def test_training_on_a_cuda_device(config: TrainingRequest, data: Images | Noise, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"data": data, "device": torch.device("cuda")}
    file = tmp_path / "snapshot.safetensors"

    def save(progress: Progress) -> None:
        if progress.step == progress.steps - 1:
            progress.snapshot().write(file)

    trained = train(Network(resnet8(), "cifar/resnet8"), config, on_progress=save, **arguments)
    resumed = train(Network(resnet8(), "cifar/resnet8"), config, snapshot=Snapshot.read(file), **arguments)
    assert resumed.last.rank == pytest.approx(trained.last.rank, rel=1e-2)
    assert trained.representation.device == CPU
    assert trained.evaluator is not None
    layers = trained.representation.layers
    rebuilt = dict(zip([layer.name for layer in layers], trained.representation.render_all(), strict=True))
    assert trained.evaluator.compare(rebuilt).divergence == pytest.approx(trained.best.rank, rel=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_kind_of_layer_can_be_trained_on_a_cuda_device() -> None:
    assert train(Network(odd()), DecoupledRequest(steps=60, hidden=32), device=torch.device("cuda")).last.relative_error < 0.3
