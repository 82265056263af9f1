"""Weights by coordinate and the whole network: every way of asking gives the same bits."""

import asyncio
import json
import struct
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest
import safetensors.torch
import torch
from fastapi import FastAPI

from service.api.context import Context
from service.api.predictors import predictor_file
from service.serving.formats import FORMATS
from service.serving.formats.format import Format, Selection
from service.serving.predictors import Cache, Served
from service.serving.renderer import Renderer
from service.serving.selection import MAX_PARTS
from service.store.database import Database
from tests.support.networks import odd, resnet8
from tests.support.stored import store_predictor

NETWORK = resnet8()


@pytest.fixture
def url(database: Database) -> str:
    """A stored predictor of ResNet-8."""
    return f"/v1/predictors/{store_predictor(database, NETWORK)}"


def test_caches_are_bounded_by_bytes_and_by_number() -> None:
    cache: Cache[torch.Tensor] = Cache(100, least_bytes=50)
    for name, size in [("a", 10), ("b", 20), ("c", 30), ("large", 400)]:
        assert len(cache.keep(name, torch.empty(size, dtype=torch.uint8))) == size
        assert cache.find(name) is not None, "the last one is always kept"
        assert len(cache) <= 2
    assert list(cache) == ["large"]


def test_a_download_holds_no_connection_while_its_client_reads(app: FastAPI, database: Database, url: str) -> None:
    context: Context = app.state.context
    with database.read() as session:
        answer = predictor_file(url.rpartition("/")[2], context, session)
    pool: Any = context.database.engine.pool

    held: list[int] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        held.append(pool.checkedout())

    asyncio.run(answer({"type": "http", "method": "GET"}, receive, send))
    assert held == [0, 0, 0]


@pytest.fixture
def weights(client: httpx.Client, url: str) -> list[torch.Tensor]:
    """Its convolutions, out of the whole network."""
    tensors = safetensors.torch.load(client.get(f"{url}/weights").content)
    return [tensors[layer["name"]] for layer in client.get(f"{url}/layers").json()]


def kernels(client: httpx.Client, url: str, **params: Any) -> list[dict[str, Any]]:
    answer = client.get(f"{url}/kernels", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["kernels"]
    return found


def same(kernel: dict[str, Any], weights: list[torch.Tensor]) -> bool:
    layer, filter, channel = kernel["coordinate"]
    return torch.equal(torch.tensor(kernel["weights"]), weights[layer][filter, channel])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"layer": "3", "filter": "0:2", "channel": "5"}, [[3, 0, 5], [3, 1, 5]]),
        ({"layer": "1", "filter": "15", "channel": "14:"}, [[1, 15, 14], [1, 15, 15]]),
        ({"layer": "0", "filter": "2,0:2", "channel": ":1"}, [[0, 2, 0], [0, 0, 0], [0, 1, 0]]),
        ({"layer": "5,1", "filter": "7", "channel": "3"}, [[5, 7, 3], [1, 7, 3]]),
        ({"layer": "0", "filter": "9"}, [[0, 9, 0], [0, 9, 1], [0, 9, 2]]),
        ({"filter": "0", "channel": "0"}, [[layer, 0, 0] for layer in range(7)]),
        ({"layer": "2", "filter": "4:4"}, []),
    ],
)
def test_slices_and_lists(
    client: httpx.Client, url: str, weights: list[torch.Tensor], params: dict[str, str], expected: list[list[int]]
) -> None:
    found = kernels(client, url, **params)
    assert [kernel["coordinate"] for kernel in found] == expected
    assert all(same(kernel, weights) for kernel in found)


def test_all_kernels(client: httpx.Client, url: str, weights: list[torch.Tensor]) -> None:
    found = kernels(client, url)
    assert len(found) == sum(weight.shape[0] * weight.shape[1] for weight in weights)
    assert all(same(kernel, weights) for kernel in found)


def test_any_coordinates_in_any_order(client: httpx.Client, url: str, weights: list[torch.Tensor]) -> None:
    wanted = [[6, 63, 63], [0, 1, 2], [6, 0, 0], [6, 63, 63], [3, 5, 7]]
    found = client.post(f"{url}/kernels", json={"coordinates": wanted}).json()["kernels"]
    assert [kernel["coordinate"] for kernel in found] == wanted
    assert all(same(kernel, weights) for kernel in found)


def test_every_format_has_the_same_bits(client: httpx.Client, url: str) -> None:
    params = {"layer": "2,4", "filter": "1:9", "channel": "3,0"}
    as_json = kernels(client, url, **params)
    lines = client.get(f"{url}/kernels", params=params, headers={"accept": "application/jsonl"})
    assert lines.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line) for line in lines.text.splitlines()] == as_json
    raw = client.get(f"{url}/kernels", params={**params, "format": "raw"})
    assert raw.headers["x-kernel-shapes"] == "32x3x3"
    assert int(raw.headers["content-length"]) == len(raw.content) == 32 * 36
    values = np.frombuffer(raw.content, "<f4").reshape(32, 3, 3)
    assert values.tolist() == [kernel["weights"] for kernel in as_json]


@pytest.mark.parametrize(
    ("headers", "params", "media_type"),
    [
        ({}, {}, "application/json"),
        ({"accept": "*/*"}, {}, "application/json"),
        ({"accept": "application/x-ndjson"}, {}, "application/x-ndjson"),
        ({"accept": "text/html, application/octet-stream;q=0.5"}, {}, "application/octet-stream"),
        ({"accept": "application/json;q=0.1, application/jsonl"}, {}, "application/jsonl"),
        ({"accept": "application/json"}, {"format": "raw"}, "application/octet-stream"),
    ],
)
def test_the_format_is_negotiated(
    client: httpx.Client, url: str, headers: dict[str, str], params: dict[str, str], media_type: str
) -> None:
    answer = client.get(f"{url}/kernels", params={"layer": "0", **params}, headers=headers)
    assert answer.headers["content-type"].partition(";")[0] == media_type


@pytest.mark.parametrize(
    ("headers", "params"),
    [({"accept": "text/html"}, {}), ({"accept": "application/json;q=much"}, {}), ({}, {"format": "xml"})],
)
def test_other_formats_are_not_acceptable(
    client: httpx.Client, url: str, headers: dict[str, str], params: dict[str, str]
) -> None:
    answer = client.get(f"{url}/kernels", params=params, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (406, "/problems/not-acceptable")


def test_a_new_format_is_one_entry(client: httpx.Client, url: str) -> None:
    def write(served: Served, selection: Selection) -> Iterator[bytes]:
        yield str(sum(len(run.indices) for run in selection.runs())).encode()

    client.event_hooks = {"response": []}  # the OpenAPI document does not have the format
    count = Format("count", "text/x-count", write, lambda selection: {"X-Layers": str(len(selection.shapes()))})
    with patch.dict("service.serving.formats.FORMATS", {"count": count}):
        for params, headers in ({"format": "count"}, {}), ({}, {"accept": "text/x-count"}):
            answer = client.get(f"{url}/kernels", params={"layer": "0", **params}, headers=headers)
            assert (answer.text, answer.headers["x-layers"]) == ("48", "1")
            assert answer.headers["content-type"].startswith("text/x-count")


def test_every_format_is_documented(client: httpx.Client) -> None:
    documented = " ".join((Path(__file__).parents[3] / "docs/api.md").read_text().split())
    paths = client.get("/openapi.json").json()["paths"]["/v1/predictors/{id}/kernels"]
    for format in FORMATS.values():
        assert f"`{format.name}` ({format.media_type}" in documented
        assert all(format.media_type in paths[method]["responses"]["200"]["content"] for method in ("get", "post"))


def test_raw_kernels_whose_layout_fits_in_no_header_are_not_acceptable(client: httpx.Client, database: Database) -> None:
    url = f"/v1/predictors/{store_predictor(database, odd())}"
    alternating = [[layer, 0, 0] for _ in range(1000) for layer in (0, 1)]
    for format, status in ("raw", 406), ("jsonl", 200):
        answer = client.post(f"{url}/kernels", params={"format": format}, json={"coordinates": alternating})
        assert answer.status_code == status
    assert len(answer.text.splitlines()) == 2000


def test_kernels_of_several_sizes(client: httpx.Client, database: Database) -> None:
    url = f"/v1/predictors/{store_predictor(database, odd())}"
    raw = client.get(f"{url}/kernels", params={"format": "raw"})
    assert raw.headers["x-kernel-shapes"] == "24x5x5,8x3x3,48x1x3,84x1x1,24x3x3,20x2x2,21x3,6x2x3x3"
    assert len(raw.content) == 4 * (24 * 25 + 8 * 9 + 48 * 3 + 84 + 24 * 9 + 20 * 4 + 21 * 3 + 6 * 18)
    line, volume = (kernels(client, url, layer=layer)[-1]["weights"] for layer in ("7", "8"))
    assert np.shape(line) == (3,)
    assert np.shape(volume) == (2, 3, 3)
    assert struct.unpack("<f", raw.content[-4:])[0] == volume[-1][-1][-1]


def test_a_kernel_of_one_weight_is_the_same_alone_and_among_others(client: httpx.Client, database: Database) -> None:
    url = f"/v1/predictors/{store_predictor(database, odd())}"
    every = kernels(client, url, layer="4")
    assert len(every) == 60
    for item in every:
        layer, filter, channel = item["coordinate"]
        assert kernels(client, url, layer=str(layer), filter=str(filter), channel=str(channel)) == [item]


@pytest.mark.parametrize(
    ("params", "status", "slug", "named"),
    [
        ({"layer": "7"}, 422, "coordinate-outside-network", "7 layers"),
        ({"layer": "0", "channel": "3"}, 422, "coordinate-outside-network", "3 channels of layer 0"),
        ({"channel": "5"}, 422, "coordinate-outside-network", "layer 0"),
        ({"layer": "1", "filter": "8:17"}, 422, "coordinate-outside-network", "8:17"),
        ({"layer": "-1"}, 422, "invalid", "-1"),
        ({"layer": "one"}, 422, "invalid", "'one'"),
        ({"layer": "1,"}, 422, "invalid", "''"),
        ({"filter": "1:2:3"}, 422, "invalid", "1:2:3"),
        ({"layer": "1,1"}, 422, "invalid", "twice"),
        ({"layer": "0:,0:,0:"}, 422, "invalid", "twice"),
        ({"layer": "9" * 40}, 422, "invalid", "slice"),
        ({"layer": ",".join(["0:0"] * (MAX_PARTS + 1))}, 422, "invalid", "more than 1000 parts"),
    ],
)
def test_what_is_outside_or_malformed_is_named(
    client: httpx.Client, url: str, params: dict[str, str], status: int, slug: str, named: str
) -> None:
    answer = client.get(f"{url}/kernels", params=params)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert named in answer.json()["detail"]


@pytest.mark.parametrize("coordinate", [["0", 0, 0], [True, 0, 0], [0, 0], [0, 0, 0, 0], [0.5, 0, 0], None])
def test_a_coordinate_is_three_integers(client: httpx.Client, url: str, coordinate: Any) -> None:
    answer = client.post(f"{url}/kernels", json={"coordinates": [coordinate]})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid")


@pytest.mark.parametrize("coordinate", [[7, 0, 0], [0, 16, 0], [0, 0, 3], [-1, 0, 0], [0, -1, 0]])
def test_a_coordinate_outside_the_network_is_named(client: httpx.Client, url: str, coordinate: list[int]) -> None:
    answer = client.post(f"{url}/kernels", json={"coordinates": [[0, 0, 0], coordinate]})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/coordinate-outside-network")
    assert answer.json()["coordinate"] == coordinate


def test_the_whole_network_is_a_state_dict(client: httpx.Client, database: Database) -> None:
    state_dict = {name: t.half() if name == "stem.weight" else t for name, t in odd().items()}
    url = f"/v1/predictors/{store_predictor(database, state_dict)}"
    answer = client.get(f"{url}/weights")
    tensors = safetensors.torch.load(answer.content)
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {n: (t.shape, t.dtype) for n, t in state_dict.items()}
    assert torch.equal(tensors["norm.running_var"], state_dict["norm.running_var"])
    assert torch.equal(tensors["head.weight"], state_dict["head.weight"])
    head = client.head(f"{url}/weights")
    assert head.content == b""
    for name in ("content-length", "etag", "content-type"):
        assert head.headers[name] == answer.headers[name]
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["content-disposition"] == 'attachment; filename="model.safetensors"'


def test_the_etag_of_the_whole_network_is_that_of_its_artefact_and_of_this_node(client: httpx.Client, url: str) -> None:
    artefact = client.get(f"{url}/file").headers["etag"].strip('"')
    assert client.get(f"{url}/weights").headers["etag"] == f'"{Renderer.here(version("nern")).etag(artefact)}"'


def test_weights_can_be_rebuilt_offline_from_the_file(client: httpx.Client, url: str, weights: list[torch.Tensor]) -> None:
    from tests.support.representations import opened

    answer = client.get(f"{url}/file")
    assert int(answer.headers["content-length"]) == len(answer.content)
    rebuilt = opened(answer.content).state_dict()
    assert all(torch.equal(rebuilt[layer["name"]], weights[layer["index"]]) for layer in client.get(f"{url}/layers").json())


def test_layers_say_what_can_be_asked_for(client: httpx.Client, url: str) -> None:
    layers = client.get(f"{url}/layers").json()
    assert layers[3] == {"index": 3, "name": "layer2.0.conv1.weight", "shape": [32, 16, 3, 3], "kernel_size": [3, 3]}


def test_unknown_predictors(client: httpx.Client) -> None:
    for path in ("", "/file", "/layers", "/kernels", "/weights"):
        answer = client.get(f"/v1/predictors/nope{path}")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
