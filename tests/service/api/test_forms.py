"""Reparametrised layers, from the upload to the rebuilt network."""

import io
from threading import Event
from typing import Any

import httpx
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import nern
from service.settings import Settings
from tests.support.calls import upload
from tests.support.forms import CASES, inputs_of, made, weight_of
from tests.support.networks import npz, saved
from worker.run import Worker

SHORT = {"steps": 2, "reconstruction_steps": 1, "hidden": 8, "image_batch": 4}


def around(convolution: nn.Module) -> nn.Module:
    """A network of two layers, the second one plain."""
    kinds = {3: nn.Conv1d, 4: nn.Conv2d}
    weight = weight_of(convolution)
    return nn.Sequential(convolution, nn.ReLU(), kinds[weight.ndim](int(convolution.out_channels), 2, 1)).eval()  # type: ignore[arg-type]


def train(client: httpx.Client, settings: Settings, checkpoint: dict[str, Any], **fields: Any) -> str:
    """The path of the predictor of a short job."""
    created = client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"], **SHORT, **fields})
    assert created.status_code == 202, created.text
    assert Worker(settings, Event()).work()
    ended = client.get(created.headers["location"]).json()
    assert ended["state"] == "succeeded", ended["error"]
    return f"/v1/predictors/{ended['predictor_id']}"


def rendered(client: httpx.Client, predictor: str, shape: torch.Size) -> Tensor:
    """The weight of the first layer, of its kernels."""
    content = client.get(f"{predictor}/kernels", params={"layer": "0", "format": "raw"}).content
    return torch.frombuffer(bytearray(content), dtype=torch.float32).reshape(shape)


@pytest.mark.parametrize("form", CASES)
def test_the_network_itself_can_load_what_comes_back(client: httpx.Client, settings: Settings, form: str) -> None:
    network = around(made(form))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    checkpoint = upload(client, saved(before)).json()
    assert [layer["name"] for layer in checkpoint["layers"]] == ["0.weight", "2.weight"]
    [note] = [note for note in checkpoint["notes"] if "comes back in that form" in note]
    stored = "as a weight and a mask" if form == "pruned" else f"with {form.partition(',')[0]}"
    assert note.startswith(f"'0.weight' is stored {stored}: what it computes is represented")
    assert checkpoint["parameters"] == sum(tensor.numel() for tensor in before.values())

    predictor = train(client, settings, checkpoint)
    assert [layer["name"] for layer in client.get(f"{predictor}/layers").json()] == ["0.weight", "2.weight"]
    rebuilt = safetensors.torch.load(client.get(f"{predictor}/weights").content)
    network.load_state_dict(rebuilt, strict=True)
    convolution = network[0]  # type: ignore[index]
    weight = rendered(client, predictor, weight_of(convolution).shape)
    [first] = [name for name in rebuilt if name.endswith(("weight_v", "weight_orig", "original1", "original")) and
               rebuilt[name].shape == weight.shape]  # fmt: skip
    assert torch.equal(rebuilt[first], weight)
    if form == "pruned":
        weight = weight * before["0.weight_mask"]
    convolution(inputs_of(convolution))
    torch.testing.assert_close(weight_of(convolution), weight, rtol=1e-4, atol=1e-6)
    kept = [name for name in before if name.endswith(("bias", "_mask", "0._v")) or (name == "0.weight_v" and first != name)]
    assert all(torch.equal(rebuilt[name], before[name]) for name in kept)


@pytest.mark.parametrize("form", ["weight norm, new", "spectral norm, new", "pruned"])
def test_a_layer_that_is_not_selected_stays_as_it_is(client: httpx.Client, settings: Settings, form: str) -> None:
    network = around(made(form))
    predictor = train(client, settings, upload(client, saved(network.state_dict())).json(), layers=["2.weight"])
    rebuilt = safetensors.torch.load(client.get(f"{predictor}/weights").content)
    assert rebuilt.keys() == network.state_dict().keys()
    assert all(torch.equal(rebuilt[name], tensor) for name, tensor in network.state_dict().items() if name != "2.weight")


@pytest.mark.parametrize(
    ("form", "way"),
    [
        ("weight norm, old", "pt2"),
        ("weight norm, new", "sequential"),
        ("spectral norm, old, transposed", "put"),
        ("spectral norm, new", "pt2"),
        ("pruned", "sequential"),
    ],
)
def test_a_network_with_forms_is_distilled_and_comes_back(
    client: httpx.Client, settings: Settings, form: str, way: str
) -> None:
    network = around(made(form))
    [sample] = inputs_of(made(form))
    waves = torch.randn(12, *sample.shape, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO()
    nern.export(network, sample[None], file)
    checkpoint = upload(client, file.getvalue() if way == "pt2" else saved(network.state_dict()), f"net.{way}").json()
    if way == "put":
        put = client.put(f"/v1/checkpoints/{checkpoint['id']}/graph", files={"file": ("net.pt2", file.getvalue())})
        assert put.status_code == 200, put.text
    kind = "convtranspose" if isinstance(network[0], nn.ConvTranspose1d | nn.ConvTranspose2d) else "conv"  # type: ignore[index]
    fields = {"network": {"sequential": [kind, "relu", "conv"]}} if way == "sequential" else {}
    dataset = client.post("/v1/datasets", files={"file": ("data.npz", npz(inputs=waves.numpy()))}).json()
    predictor = train(client, settings, checkpoint, data={"dataset_id": dataset["id"]}, **fields)
    report = client.get(predictor).json()["report"]
    assert report["distilled"]
    rebuilt = safetensors.torch.load(client.get(f"{predictor}/weights").content)
    network.load_state_dict(rebuilt, strict=True)
    outputs = network(waves)
    content = client.get(f"{predictor}/model.onnx")
    assert content.status_code == 200, content.text
    session = onnxruntime.InferenceSession(content.content)
    [given] = session.run(None, {session.get_inputs()[0].name: waves[:1].numpy()})
    torch.testing.assert_close(torch.from_numpy(given), outputs[:1], rtol=1e-4, atol=1e-4)
