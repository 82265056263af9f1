"""The HTTP contract: datasets of every kind."""

from typing import Any

import httpx
import numpy as np
import pytest

from nern import tensorfile
from service.settings import Settings
from service.store import blobs
from tests.support.calls import DATASET, is_problem, new_job
from tests.support.datasets import IMAGES, LABELS, archive, picture
from tests.support.networks import npz
from tests.support.schemas import answer_schema, undocumented

FOLDERS = archive({"cat/1.png": picture(12, 10), "dog/1.png": picture(12, 10), "dog/2.png": picture(10, 12)})
SIGNALS = np.random.default_rng(0).normal(size=(4, 2, 100)).astype(np.float32)


def send(client: httpx.Client, content: bytes, **params: str) -> httpx.Response:
    return client.post("/v1/datasets", params=params, files={"file": ("d", content)})


def answered(client: httpx.Client, content: bytes, **params: str) -> Any:
    """The answer to an upload that succeeds, which is also the answer to later requests, and documented."""
    answer = send(client, content, **params)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert client.get(answer.headers["location"]).json() == found == client.get("/v1/datasets").json()["items"][0]
    document = client.get("/openapi.json").json()
    assert undocumented(found, answer_schema(document, "/v1/datasets/{id}"), document) == []
    return found


def stored(settings: Settings, id: str) -> dict[str, Any]:
    """The tensors of a dataset that a worker reads."""
    return tensorfile.load(settings.data_dir / "blobs" / blobs.dataset_tensors(id))


def test_images(client: httpx.Client, settings: Settings) -> None:
    found = answered(client, npz(images=IMAGES, labels=LABELS[:, None], class_names=np.array(["a", "b", "c"])))
    assert found["kind"] == "images"
    assert found["inputs"] == [{"name": "images", "dtype": "U8", "shape": [4, 8, 6, 3]}]
    assert found["labels"] == {"kind": "classes", "dtype": "I64", "shape": [4]}
    assert (found["images"], found["height"], found["width"], found["channels"]) == (4, 8, 6, 3)
    assert (found["classes"], found["class_names"]) == (3, ["a", "b", "c"])
    shape, default = found["notes"]
    assert shape == "`labels` of shape [4, 1] was read as 4 labels."
    assert "ImageNet's were taken (0.485,0.456,0.406; 0.229,0.224,0.225)" in default
    assert stored(settings, found["id"])["images"].tolist() == IMAGES.tolist()


def test_unlabelled_images_of_floats(client: httpx.Client, settings: Settings) -> None:
    pixels = np.random.default_rng(0).random((4, 8, 6), np.float32)
    found = answered(client, npz(images=pixels))
    assert found["inputs"] == [{"name": "images", "dtype": "F32", "shape": [4, 8, 6, 1]}]
    assert (found["labels"], found["classes"], found["class_names"]) == (None, None, None)
    assert found["mean"] == pytest.approx([pixels.mean()])
    assert stored(settings, found["id"])["images"].squeeze(3).tolist() == pixels.tolist()


def test_inputs(client: httpx.Client, settings: Settings) -> None:
    arrays: Any = {"inputs.left": SIGNALS, "inputs.right": np.arange(4), "targets": SIGNALS[:, 0]}
    found = answered(client, npz(**arrays))
    assert found["kind"] == "inputs"
    assert found["inputs"] == [
        {"name": "left", "dtype": "F32", "shape": [4, 2, 100]},
        {"name": "right", "dtype": "I64", "shape": [4]},
    ]
    assert found["labels"] == {"kind": "values", "dtype": "F32", "shape": [4, 100]}
    assert [found[name] for name in ("images", "height", "width", "channels", "classes", "mean", "std")] == [None] * 7
    assert stored(settings, found["id"]).keys() == {"inputs.left", "inputs.right", "targets"}
    given = send(client, npz(**arrays), mean="0", std="1")
    assert is_problem(given, 422, "invalid", "inputs reach the network as they are")
    assert given.json()["errors"][0]["pointer"] == "query:mean"
    again = send(client, npz(**arrays))
    assert (again.status_code, again.json()["id"]) == (200, found["id"])


def test_dense_classes(client: httpx.Client) -> None:
    found = answered(client, npz(images=IMAGES, targets=IMAGES[..., 0] % 5))
    assert (found["labels"], found["classes"]) == ({"kind": "dense classes", "dtype": "U8", "shape": [4, 8, 6]}, 5)


def test_class_folders(client: httpx.Client, settings: Settings) -> None:
    found = answered(client, FOLDERS)
    assert (found["images"], found["height"], found["width"], found["channels"]) == (3, 12, 10, 3)
    assert (found["classes"], found["class_names"]) == (2, ["cat", "dog"])
    assert "another size than 12 x 10: 1 of 3" in found["notes"][0]
    smaller = answered(client, FOLDERS, size="4")
    assert (smaller["height"], smaller["width"]) == (4, 4)
    assert stored(settings, smaller["id"])["labels"].tolist() == [0, 1, 1]
    rectangle = answered(client, FOLDERS, size="4x6")
    assert (rectangle["height"], rectangle["width"]) == (4, 6)
    again = send(client, FOLDERS, size="4x4")
    assert (again.status_code, again.json()["id"]) == (200, smaller["id"])


@pytest.mark.parametrize("size", ["0", "x", "4x", "4x0", "99999", "-4", "4.5", "4x4x4"])
def test_a_size_that_makes_no_sense_is_refused(client: httpx.Client, size: str) -> None:
    assert is_problem(send(client, FOLDERS, size=size), 422, "invalid")


@pytest.mark.parametrize(
    ("mean", "std", "numbers"),
    [
        ("125.3,123,113.9", "63,62.1,66.7", "?mean=0.4914,0.4824,0.4467&std=0.2471,0.2435,0.2616"),
        ("0.5,0.5,1.5", "1,1,1", "?mean=0.001961,0.001961,0.005882&std=0.003922,0.003922,0.003922"),
    ],
)
def test_a_mean_of_pixels_from_0_to_255_is_questioned(client: httpx.Client, mean: str, std: str, numbers: str) -> None:
    answer = send(client, DATASET, mean=mean, std=std)
    assert is_problem(answer, 422, "invalid", "pixels scaled to 0..1")
    assert numbers in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "query:mean"
    assert send(client, DATASET, mean="1,0,-1", std="1,1,1").status_code == 201


def test_jobs_do_not_train_on_inputs_of_a_network_of_images(client: httpx.Client) -> None:
    dataset = send(client, npz(inputs=SIGNALS)).json()["id"]
    refused = new_job(client, data={"dataset_id": dataset})
    assert is_problem(refused, 422, "invalid", "the network can't take the input 'inputs': its shape is any x 2 x 100")
    assert refused.json()["errors"][0]["pointer"] == "/data/dataset_id"


def test_an_accuracy_target_needs_a_class_for_each_image(client: httpx.Client) -> None:
    dataset = send(client, npz(images=IMAGES, targets=IMAGES[..., 0] % 5)).json()["id"]
    refused = new_job(client, data={"dataset_id": dataset}, target={"drop": 0.5})
    assert is_problem(refused, 422, "invalid", "a dataset with labels")
