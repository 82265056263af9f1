"""Networks as graphs: from an upload over a job to an ONNX file of the rebuilt network."""

import io
import warnings
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import nern
from nern.layers import StateDict
from service.settings import Settings
from service.store.database import Database
from service.store.tables import Graph
from tests.support.calls import is_problem, upload
from tests.support.networks import npz, saved
from worker.run import Worker

STEPS = ["conv stride=2", "relu", "conv padding=1 groups=6", "batchnorm", "relu", "adaptiveavgpool 2", "flatten", "linear"]


class Net(nn.Module):
    """A network that no architecture matches. Its reshape names the batch, which is fixed in a file with a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2)
        self.second = nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.second(self.first(x).relu())).relu()
        y: Tensor = self.head(nn.functional.adaptive_avg_pool2d(x, 2).reshape(x.shape[0], 48))
        return y


def network() -> Net:
    torch.manual_seed(0)
    made = Net().eval()
    made.norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]  # a tensor
    return made


EXAMPLE = torch.zeros(1, 3, 9, 9)


def as_pt2(module: nn.Module | None = None) -> bytes:
    file = io.BytesIO()
    nern.export(module or network(), EXAMPLE, file)
    return file.getvalue()


def as_onnx(module: nn.Module | None = None) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(module or network(), (EXAMPLE,), file, dynamo=True, verbose=False)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The network in each kind of file."""
    return {"net.pt2": as_pt2(), "net.onnx": as_onnx(), "net.pth": saved(network().state_dict())}


IMAGES = npz(
    images=np.random.default_rng(0).integers(0, 256, (30, 9, 9, 3), np.uint8),
    labels=np.random.default_rng(1).integers(0, 4, 30),
)


def train(client: httpx.Client, settings: Settings, checkpoint: str, **fields: Any) -> dict[str, Any]:
    """The predictor of a short job with images."""
    dataset = client.post("/v1/datasets", files={"file": ("images.npz", IMAGES)}).json()["id"]
    body = {"checkpoint_id": checkpoint, "data": {"dataset_id": dataset}, "steps": 30, "layers": "everything", "hidden": 8}
    created = client.post("/v1/jobs", json={**body, **fields})
    assert created.status_code == 202, created.text
    assert Worker(settings, Event()).work()
    job = client.get(created.headers["Location"]).json()
    assert (job["state"], job["error"]) == ("succeeded", None)
    assert job["architecture"] == "graph"
    predictor: dict[str, Any] = client.get(f"/v1/predictors/{job['predictor_id']}").json()
    return predictor


def run(content: bytes, inputs: Tensor) -> Tensor:
    """What onnxruntime computes."""
    session = onnxruntime.InferenceSession(content)
    [outputs] = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return torch.from_numpy(outputs)


def outputs_of(weights: StateDict, inputs: Tensor) -> Tensor:
    """What the module computes with these weights."""
    module = network()
    module.load_state_dict(weights, strict=True)
    outputs: Tensor = module(inputs).detach()
    return outputs


def filled(content: bytes, weights: StateDict) -> bytes:
    """An ONNX file with other weights. (The exporter has folded the batch norm, so that no module can load these.)"""
    model = onnx.load_from_string(content)
    for value in model.graph.initializer:
        value.CopyFrom(onnx.numpy_helper.from_array(weights[value.name].numpy(), value.name))
    changed: bytes = model.SerializeToString()
    return changed


def test_a_file_with_a_graph_says_what_goes_in_and_what_comes_out(client: httpx.Client, files: dict[str, bytes]) -> None:
    for name, format, batch in (("net.pt2", "torch-export", None), ("net.onnx", "onnx", 1)):
        answer = upload(client, files[name], name)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        assert (body["format"], body["architecture"]) == (format, "graph")
        [input], [output] = body["inputs"], body["outputs"]
        assert (input["dtype"], input["shape"], output["shape"]) == ("F32", [batch, 3, 9, 9], [batch, 4])
        assert {layer["name"]: layer["groups"] for layer in body["layers"]} == {"first.weight": 1, "second.weight": 6}


@pytest.mark.parametrize("way", ["net.pt2", "net.onnx", "sequential", "put"])
def test_a_network_of_unknown_code_is_distilled_and_comes_back(
    client: httpx.Client, settings: Settings, files: dict[str, bytes], way: str
) -> None:
    checkpoint = upload(client, files.get(way, files["net.pth"]), way).json()
    if way == "put":
        put = client.put(f"/v1/checkpoints/{checkpoint['id']}/graph", files={"file": ("net.pt2", files["net.pt2"])})
        assert put.status_code == 200, put.text
        assert put.json()["architecture"] == "graph"
        assert put.json()["inputs"][0]["shape"] == [None, 3, 9, 9]
    fields = {"network": {"sequential": STEPS}} if way == "sequential" else {}
    predictor = train(client, settings, checkpoint["id"], **fields)
    with np.load(io.BytesIO(IMAGES)) as arrays:
        pixels = torch.from_numpy(arrays["images"]).movedim(-1, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    inputs = (pixels - mean) / std
    report = predictor["report"]
    assert report["distilled"]
    assert report["accuracy"]["original"] is not None

    url = f"/v1/predictors/{predictor['id']}"
    weights = safetensors.torch.load(client.get(f"{url}/weights").content)
    assert not torch.equal(weights["first.weight"], network().first.weight)
    head = client.head(f"{url}/model.onnx")
    content = client.get(f"{url}/model.onnx")
    assert int(head.headers["content-length"]) == len(content.content)
    # The same artefact, release, torch and processor decide the bits of both files.
    assert head.headers["etag"] == content.headers["etag"] == client.head(f"{url}/weights").headers["etag"]
    assert content.headers["content-disposition"] == 'attachment; filename="model.onnx"'
    onnx.checker.check_model(onnx.load_from_string(content.content))
    names = {value.name for value in onnx.load_from_string(content.content).graph.initializer}
    assert {"first.weight", "second.weight", "head.weight", "head.bias"} <= names
    expected = run(filled(files["net.onnx"], weights), inputs[:1]) if way == "net.onnx" else outputs_of(weights, inputs[:1])
    torch.testing.assert_close(run(content.content, inputs[:1]), expected, rtol=1e-4, atol=1e-4)


def test_an_onnx_file_and_the_file_of_its_tensors_are_one_checkpoint(
    client: httpx.Client, settings: Settings, files: dict[str, bytes], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(network(), (EXAMPLE,), tmp_path / "net.onnx", dynamo=True, external_data=True, verbose=False)
    content = {name: (tmp_path / name).read_bytes() for name in ("net.onnx", "net.onnx.data")}
    alone = upload(client, content["net.onnx"], "net.onnx")
    assert is_problem(alone, 422, "unsupported-graph", "'net.onnx.data'; send both files together")
    assert is_problem(upload(client, content["net.onnx.data"], "net.onnx.data"), 422, "lone-shard", "send both files together")
    several = [("file", (name, data)) for name, data in content.items()]
    two = client.post("/v1/checkpoints", files=[*several, ("file", ("other.onnx", content["net.onnx"]))])
    assert is_problem(two, 422, "bad-shards", "net.onnx, other.onnx; send one network")

    answer = client.post("/v1/checkpoints", files=several)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["format"], found["architecture"], found["filename"]) == ("onnx", "graph", "net.tar")
    predictor = train(client, settings, found["id"], layers=["first.weight"])
    weights = safetensors.torch.load(client.get(f"/v1/predictors/{predictor['id']}/weights").content)
    rebuilt = client.get(f"/v1/predictors/{predictor['id']}/model.onnx").content
    torch.testing.assert_close(run(rebuilt, EXAMPLE), run(filled(files["net.onnx"], weights), EXAMPLE), rtol=1e-5, atol=1e-5)

    checkpoint = upload(client, saved({name: tensor.clone() for name, tensor in weights.items()})).json()["id"]
    put = client.put(f"/v1/checkpoints/{checkpoint}/graph", files=several)
    assert put.json().get("architecture") == "graph", put.text


def test_a_network_without_a_graph_has_no_onnx_file(client: httpx.Client, settings: Settings, files: dict[str, bytes]) -> None:
    checkpoint = upload(client, files["net.pth"]).json()["id"]
    created = client.post("/v1/jobs", json={"checkpoint_id": checkpoint, "steps": 2, "hidden": 4})
    assert Worker(settings, Event()).work()
    predictor = client.get(created.headers["Location"]).json()["predictor_id"]
    assert is_problem(client.get(f"/v1/predictors/{predictor}/model.onnx"), 404, "not-found", "has no ONNX file")


def test_a_graph_of_another_network_is_refused(client: httpx.Client, files: dict[str, bytes]) -> None:
    wider = network()
    wider.head = nn.Linear(48, 5)
    other = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten())
    checkpoint = upload(client, files["net.pth"]).json()["id"]
    for content, named in (
        (as_pt2(wider), "'head.weight' has the shape [5, 48] in the graph and [4, 48] in the checkpoint"),
        (as_pt2(other), "the graph takes the tensor '0.weight', which the checkpoint does not have"),
        (files["net.pth"], "the file holds no graph"),
    ):
        answer = client.put(f"/v1/checkpoints/{checkpoint}/graph", files={"file": ("net.pt2", content)})
        assert is_problem(answer, 422, "unsupported-graph", named)
    assert client.get(f"/v1/checkpoints/{checkpoint}").json()["architecture"] is None
    assert is_problem(client.put("/v1/checkpoints/none/graph", files={"file": ("a", b"a")}), 404, "not-found")


def test_a_graph_does_not_change_under_a_job(client: httpx.Client, files: dict[str, bytes]) -> None:
    checkpoint = upload(client, files["net.pth"]).json()["id"]
    assert client.post("/v1/jobs", json={"checkpoint_id": checkpoint}).status_code == 202
    answer = client.put(f"/v1/checkpoints/{checkpoint}/graph", files={"file": ("net.pt2", files["net.pt2"])})
    assert is_problem(answer, 409, "in-use")


def test_a_deleted_checkpoint_has_no_graph(client: httpx.Client, database: Database, files: dict[str, bytes]) -> None:
    checkpoint = upload(client, files["net.pt2"]).json()["id"]
    with database.read() as session:
        assert session.get(Graph, checkpoint) is not None
    assert client.delete(f"/v1/checkpoints/{checkpoint}").status_code == 204
    with database.read() as session:
        assert session.get(Graph, checkpoint) is None


def test_the_weights_of_a_plain_sequence_get_a_description(client: httpx.Client) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 15 * 15, 7))
    answer = upload(client, saved(plain.state_dict())).json()
    assert answer["sequential"] == ["conv", "relu", "maxpool 2", "flatten", "linear"]


def test_a_description_that_does_not_fit_points_at_its_step(client: httpx.Client, files: dict[str, bytes]) -> None:
    checkpoint = upload(client, files["net.pth"]).json()["id"]
    body = {"checkpoint_id": checkpoint, "network": {"sequential": ["conv", "conv"], "input_shape": [3, 9, 9]}}
    answer = client.post("/v1/jobs", json=body)
    assert is_problem(answer, 422, "invalid", "step 2, 'conv'")
    assert answer.json()["errors"][0]["pointer"] == "/network/sequential/1"
    dataset = client.post("/v1/datasets", files={"file": ("images.npz", IMAGES)}).json()["id"]
    steps = [*STEPS[:-3], "flatten", "linear"]
    taken = client.post(
        "/v1/jobs", json={"checkpoint_id": checkpoint, "data": {"dataset_id": dataset}, "network": {"sequential": steps}}
    )
    assert is_problem(taken, 422, "invalid", "takes 48 numbers, but the step gets the shape [192]")
    for network, pointer in (
        ({"sequential": ["relu"] * 1001}, "/network/sequential"),
        ({"sequential": []}, "/network/sequential"),
        ({"sequential": ["conv"], "input_shape": [1] * 6}, "/network/input_shape"),
    ):
        refused = client.post("/v1/jobs", json={"checkpoint_id": checkpoint, "network": network})
        assert is_problem(refused, 422, "invalid")
        assert refused.json()["errors"][0]["pointer"] == pointer
    both = client.post("/v1/jobs", json={**body, "architecture": "cifar/resnet8"})
    assert is_problem(both, 422, "invalid", "not both")


def control_flow() -> bytes:
    """An ONNX file with a loop."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("n", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    loop = helper.make_node("Loop", ["times", ""], [], name="again", body=body)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 9, 9])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], [0.0] * 108)
    times = helper.make_tensor("times", TensorProto.INT64, [], [3])
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), loop]
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [result], [weight, times]))
    content: bytes = model.SerializeToString()
    return content


def test_what_can_not_be_computed_is_named(client: httpx.Client, files: dict[str, bytes], tmp_path: Path) -> None:
    assert is_problem(upload(client, control_flow(), "net.onnx"), 422, "unsupported-graph", "Loop")
    cut = upload(client, files["net.onnx"][:-100], "net.onnx")
    assert is_problem(cut, 422, "unsupported-graph", "damaged")
    assert client.get("/v1/checkpoints").json()["items"] == []
