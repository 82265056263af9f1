"""The main job, from outside: what a client does, and what it must see, however the service is run."""

import json
from typing import Any

import httpx
import safetensors.torch
import torch

from nern import architectures
from nern.images import Images
from tests.support.networks import dataset_file, images, resnet8, saved
from tests.support.waiting import DEADLINE_SECONDS, until

JOB = {"steps": 160, "reconstruction_steps": 120, "ratio": 0.4, "image_batch": 16, "kernel_batch": 2048}


def main_job(url: str) -> None:
    """Upload, train, poll, fetch by coordinate, fetch everything, compare."""
    original = resnet8()
    with httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client:
        until(lambda: client.get("/readyz").status_code == 200, what="readiness")
        checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved({"state_dict": original}))}))
        normalisation = {"mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25"}
        dataset = ok(client.post("/v1/datasets", files={"file": dataset_file(200)}, params=normalisation))
        body = {"checkpoint_id": checkpoint["id"], "data": {"dataset_id": dataset["id"]}, **JOB}
        job = ok(client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "main"}))
        seen = follow(client, job["id"])
        job = ok(client.get(f"/v1/jobs/{job['id']}"))
        assert job["state"] == "succeeded", job["error"]
        assert job["attempt"] == 1
        assert [event["kind"] for event in seen][:2] == ["state", "state"]
        assert {event["kind"] for event in seen} == {"state", "progress", "metrics"}
        assert seen[-1]["data"] == {"state": "succeeded", "predictor_id": job["predictor_id"]}

        predictor = ok(client.get(f"/v1/predictors/{job['predictor_id']}"))
        report = predictor["report"]
        assert report["bytes"]["predictor"] + report["bytes"]["permutation"] < 0.5 * report["bytes"]["represented"]
        rebuilt = safetensors.torch.load(client.get(f"/v1/predictors/{predictor['id']}/weights").content)
        kernel = ok(client.get(f"/v1/predictors/{predictor['id']}/kernels?layer=4&filter=3&channel=9"))["kernels"][0]
        assert torch.equal(torch.tensor(kernel["weights"]), rebuilt["layer2.0.conv2.weight"][3, 9])

    network = architectures.build("cifar/resnet8", original)
    theirs = answers(network, images(200))
    network.load_state_dict(rebuilt, strict=True)
    ours = answers(network, images(200))
    # An untrained network's answers on noise hang on little; a predictor that was not trained agrees on a tenth.
    assert (theirs == ours).float().mean() > 0.5
    assert report["relative_error"]["overall"] < 0.9


def follow(client: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    """All events of a job, from its live stream."""
    seen: list[dict[str, Any]] = []
    event: dict[str, Any] = {}
    headers = {"accept": "text/event-stream"}
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=DEADLINE_SECONDS) as stream:
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event["kind"] = value
            elif name == "data":
                event["data"] = json.loads(value)
            elif name == "id":
                event["number"] = int(value)
            elif not line and event:
                seen.append(event)
                event = {}
    assert [event["number"] for event in seen] == list(range(1, len(seen) + 1))
    return seen


def ok(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()


@torch.inference_mode()
def answers(network: torch.nn.Module, made: Images) -> torch.Tensor:
    logits: torch.Tensor = network(made.normalised(made.pixels_NHWC))
    return logits.argmax(1)
