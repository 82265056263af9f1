"""Names of tensors and the choice of a state_dict, from the upload to the rebuilt network."""

from collections.abc import Callable
from threading import Event
from typing import Any

import httpx
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from nern.architectures.cifar import NETWORKS, ResNet
from service.settings import Settings
from tests.support.calls import DATASET, is_problem, upload
from tests.support.networks import resnet8, saved
from worker.run import Worker

SHORT = {"steps": 2, "reconstruction_steps": 1, "hidden": 8, "image_batch": 4}


class Own(nn.Module):
    """A module with another one as its attribute `name`, and perhaps a loss that keeps a buffer."""

    def __init__(self, name: str, inner: nn.Module, *, loss: bool = False) -> None:
        super().__init__()
        self.add_module(name, inner)
        if loss:
            self.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.ones(10))


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))


def inner_parallel() -> nn.Module:
    """A network of which only one stage was wrapped by DataParallel, as the ImageNet example of torch does."""
    network = ResNet(8)
    network.layer2 = nn.DataParallel(network.layer2)  # type: ignore[assignment]
    return network


def tied() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    network[1].weight = network[0].weight
    return network


CASES: list[tuple[str, Callable[[], nn.Module], str | None]] = [
    ("an attribute called network", lambda: Own("network", plain()), None),
    ("DataParallel", lambda: nn.DataParallel(ResNet(8)), "cifar/resnet8"),
    ("backbone", lambda: Own("backbone", ResNet(8)), "cifar/resnet8"),
    ("nested wrappers", lambda: Own("model", nn.DataParallel(Own("encoder", ResNet(8)))), "cifar/resnet8"),
    ("DataParallel inside", inner_parallel, "cifar/resnet8"),
    ("AveragedModel", lambda: AveragedModel(ResNet(8)), "cifar/resnet8"),
    ("beside a loss", lambda: Own("net", ResNet(8), loss=True), "cifar/resnet8"),
    ("tied", tied, None),
]


def train(client: httpx.Client, settings: Settings, checkpoint: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The predictor of a job of two steps."""
    job = client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"], **SHORT, **fields}).json()
    assert Worker(settings, Event()).work()
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    assert ended["state"] == "succeeded", ended["error"]
    found: dict[str, Any] = client.get(f"/v1/predictors/{ended['predictor_id']}").json()
    return found


@pytest.mark.parametrize(("make", "architecture"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_network_itself_can_load_what_comes_back(
    client: httpx.Client, settings: Settings, make: Callable[[], nn.Module], architecture: str | None
) -> None:
    network = make()
    checkpoint = upload(client, saved(network.state_dict())).json()
    assert checkpoint["architecture"] == architecture
    assert {item["name"] for item in checkpoint["layers"] + checkpoint["kept"]} | checkpoint["aliases"].keys() == set(
        network.state_dict()
    )
    fields: dict[str, Any] = {}
    if architecture:
        dataset = client.post("/v1/datasets", files={"file": ("d.npz", DATASET)}).json()
        fields["data"] = {"dataset_id": dataset["id"]}
    predictor = train(client, settings, checkpoint, **fields)
    assert predictor["report"]["distilled"] == bool(architecture)
    if architecture:
        # Two steps rebuild nothing, so the rebuilt network gives other outputs, and the original one its own.
        assert predictor["report"]["divergence"] > 0
    rebuilt = safetensors.torch.load(client.get(f"/v1/predictors/{predictor['id']}/weights").content)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(rebuilt, strict=True)
    represented = {item["name"] for item in checkpoint["layers"]} | checkpoint["aliases"].keys()
    assert all(torch.equal(rebuilt[name], tensor) == (name not in represented) for name, tensor in before.items())


def test_groups_are_those_of_the_architecture_under_a_prefix(client: httpx.Client) -> None:
    found = upload(client, saved({f"backbone.{name}": tensor for name, tensor in resnet8().items()})).json()
    assert {layer["groups"] for layer in found["layers"]} == {1}
    assert found["layers"][0]["name"] == "backbone.conv1.weight"


# The choice of a state_dict

RAW, MEAN = resnet8(seed=0), resnet8(seed=1)
TWO = saved({"params": RAW, "params_ema": MEAN})


def send(client: httpx.Client, content: bytes, **params: str) -> httpx.Response:
    return client.post("/v1/checkpoints", files={"file": ("net.pt", content)}, params=params)


def test_the_answer_says_what_was_chosen_and_the_key_chooses(client: httpx.Client) -> None:
    averaged = send(client, TWO)
    assert averaged.status_code == 201
    assert (averaged.json()["key"], averaged.json()["keys"]) == ("params_ema", ["params"])
    assert averaged.json()["notes"] == ["the averaged weights at 'params_ema' were taken; `?key=` takes others: 'params'"]
    raw = send(client, TWO, key="params")
    assert raw.status_code == 201
    assert (raw.json()["key"], raw.json()["keys"]) == ("params", ["params_ema"])
    assert raw.json()["sha256"] == averaged.json()["sha256"]
    assert client.get(raw.headers["location"]).json() == raw.json()
    assert len(client.get("/v1/checkpoints").json()["items"]) == 2


def test_a_checkpoint_is_a_file_and_a_key(client: httpx.Client) -> None:
    first, raw = send(client, TWO), send(client, TWO, key="params")
    for again, known in [
        (send(client, TWO), first),
        (send(client, TWO, key="params_ema"), first),
        (send(client, TWO, key="params"), raw),
    ]:
        assert (again.status_code, again.json()) == (200, known.json())


def test_the_first_upload_may_name_the_key_that_is_chosen_without_one(client: httpx.Client) -> None:
    named = send(client, TWO, key="params_ema")
    assert (named.status_code, send(client, TWO).json()["id"]) == (201, named.json()["id"])


def test_an_unknown_key_is_answered_with_the_keys(client: httpx.Client) -> None:
    answer = send(client, TWO, key="ema")
    assert is_problem(answer, 422, "invalid", "the file holds no state_dict 'ema'; it holds 'params_ema', 'params'")
    assert answer.json()["errors"][0]["pointer"] == "query:key"
    assert client.get("/v1/checkpoints").json()["items"] == []


def test_a_plain_file_has_one_state_dict(client: httpx.Client) -> None:
    found = upload(client).json()
    assert (found["key"], found["keys"], found["notes"], found["aliases"]) == (".", [], [], {})


def test_tied_weights_are_one_layer(client: httpx.Client) -> None:
    found = upload(client, saved(tied().state_dict())).json()
    assert [layer["name"] for layer in found["layers"]] == ["0.weight"]
    assert found["aliases"] == {"1.weight": "0.weight"}
    assert found["parameters"] == 81 + 3 + 3


def test_the_answer_names_candidates_assumptions_and_the_nearest_architecture(client: httpx.Client) -> None:
    small_stem = ResNet(8).state_dict() | {"layer3.0.conv2.weight": torch.ones(64, 64, 5, 5)}
    near = send(client, saved(small_stem)).json()
    assert (near["architecture"], near["candidates"]) == (None, [])
    assert "the nearest is cifar/resnet8: 'layer3.0.conv2.weight' has the shape [64, 64, 5, 5]" in near["notes"][-1]
    network = NETWORKS["cifar/shufflenetv2_x0_5"][0](10)
    both = send(client, saved(network.state_dict())).json()
    assert both["architecture"] is None
    assert both["candidates"] == ["cifar/shufflenetv2_x0_5", "torchvision/shufflenet_v2_x0_5"]
    assert "name one in the job: cifar/shufflenetv2_x0_5, torchvision" in both["notes"][-1]
    network.fc = nn.Sequential(nn.Linear(1024, 20), nn.ReLU(), nn.Linear(20, 4))
    headed = send(client, saved(network.state_dict())).json()
    assert headed["architecture"] == "torchvision/shufflenet_v2_x0_5"
    assert "a ReLU is taken to be at fc.1" in " ".join(headed["notes"])
