"""The HTTP contract: jobs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest
import torch
from sqlalchemy.orm import Session
from torchvision.models import squeezenet1_1

from nern.errors import UnusableImages
from nern.facts import NetworkFacts, NoiseFacts
from nern.planning import make_plan
from nern.request import DecoupledRequest
from service.jobs.wakeups import Polling
from service.settings import Settings
from service.store import blobs, jobs, snapshots
from service.store.database import Database
from service.store.tables import Job, Predictor, PredictorChunk
from tests.support.calls import DATASET, finish, is_problem, new_job, upload
from tests.support.networks import dataset_file, npz, odd, resnet8, saved
from tests.support.stored import store_predictor
from tests.support.waiting import until


def test_a_job_echoes_its_configuration_resolved(client: httpx.Client) -> None:
    dataset = client.post("/v1/datasets", files={"file": DATASET}).json()["id"]
    answer = new_job(client, data={"dataset_id": dataset}, ratio=0.3, steps=None, hidden=None)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["architecture"], job["data"], job["notes"]) == (
        "queued",
        "cifar/resnet8",
        {"dataset_id": dataset},
        [],
    )
    config = job["config"]
    assert (config["recipe"], config["steps"], config["reconstruction_steps"], config["seed"]) == ("decoupled", 3000, 2500, 0)
    assert config["hidden"] == 61
    assert client.get(answer.headers["location"]).json() == job


def test_recipes_have_their_own_defaults(client: httpx.Client) -> None:
    config = new_job(client, recipe="paper", data={"noise": "uniform"}).json()["config"]
    assert (config["base"], config["levels"], config["steps"], config["kernel_batch"]) == (0.76, 40, 68_600, 4096)
    config = new_job(client, recipe="regularised", data={"noise": "uniform"}).json()["config"]
    assert (config["recipe"], config["permutation"], config["smoothing_steps"]) == ("regularised", "none", 300)


def test_an_accuracy_target_leaves_the_size_open(client: httpx.Client) -> None:
    dataset = client.post("/v1/datasets", files={"file": DATASET}).json()["id"]
    answer = new_job(client, data={"dataset_id": dataset}, target={"drop": 0.5}, hidden=None)
    assert answer.status_code == 202
    config = answer.json()["config"]
    assert (config["target"], config["hidden"], config["ratio"]) == ({"drop": 0.5}, None, None)


def test_linear_layers_are_represented_on_request(client: httpx.Client) -> None:
    assert new_job(client, layers=["conv1.weight", "linear.weight"]).status_code == 202
    refused = new_job(client, layers=["linear.bias"])
    assert is_problem(refused, 422, "not-representable", "linear.bias")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/layers"]


def test_the_layers_of_the_paper_are_those_of_its_networks(client: httpx.Client) -> None:
    assert new_job(client, layers="paper").json()["config"]["layers"] == "paper"
    unknown = upload(client, saved(odd())).json()["id"]
    refused = client.post("/v1/jobs", json={"checkpoint_id": unknown, "layers": "paper"})
    assert is_problem(refused, 422, "not-representable", 'use "all" or a list of names')


def test_a_job_that_can_only_reconstruct_says_so(client: httpx.Client) -> None:
    job = new_job(client).json()
    assert "no data" in job["notes"][0]
    assert "importance" in new_job(client, importance=True).json()["notes"][1]
    unknown = upload(client, saved(odd())).json()["id"]
    job = client.post("/v1/jobs", json={"checkpoint_id": unknown, "data": {"noise": "normal"}}).json()
    assert "architecture is unknown" in job["notes"][0]
    assert job["config"]["reconstruction_steps"] == job["config"]["steps"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"hiden": 3}, "/hiden"),
        ({"hidden": 0}, "/hidden"),
        ({"hidden": 8, "ratio": 0.5}, ""),
        ({"steps": 10, "reconstruction_steps": 11}, ""),
        ({"recipe": "other"}, ""),
        ({"weight_decay": 0.1}, "/weight_decay"),
        ({"data": {"noise": "pink"}}, "/data/noise"),
        ({"data": {}}, "/data/dataset_id"),
        ({"data": {"noise": "normal", "dataset_id": "1"}}, "/data/dataset_id"),
        ({"architecture": "cifar/resnet9"}, "/architecture"),
        ({"layers": []}, "/layers"),
        ({"steps": True}, "/steps"),
        ({"target": {"drop": 0.5}}, "/target"),
        ({"target": {"drop": 0.5}, "data": {"noise": "matched"}}, "/target"),
        ({"target": {"drop": -1}}, "/target/drop"),
        ({"target": {"drop": "1"}}, "/target/drop"),
        ({"checkpoint_id": None}, "/checkpoint_id"),
        ({"architecture": "cifar/resnet20"}, "/architecture"),
        ({"target": {"drop": 1}, "hidden": 8}, ""),
        ({"recipe": "regularised"}, "/data"),
        ({"recipe": "regularised", "smoothing_steps": 0}, "/smoothing_steps"),
        ({"bits": 9}, "/bits"),
        ({"sparsity": 0.5}, ""),
        ({"synthesised_images": 1_000_000, "data": {"noise": "matched"}}, "/synthesised_images"),
        ({"seed": "1"}, "/seed"),
    ],
)
def test_invalid_fields_are_pointed_at(client: httpx.Client, fields: dict[str, Any], pointer: str) -> None:
    answer = new_job(client, **fields)
    assert is_problem(answer, 422, "invalid")
    assert all(error["detail"] for error in answer.json()["errors"])
    assert {error["pointer"] for error in answer.json()["errors"]} == {pointer}


def test_of_many_errors_the_first_are_described(client: httpx.Client) -> None:
    answer = new_job(client, **{f"field{number}": 1 for number in range(300)})
    assert is_problem(answer, 422, "invalid", "and 299 more")
    assert len(answer.json()["errors"]) == 20
    wrong_names = new_job(client, layers=[1] * 3000)
    assert {error["pointer"] for error in wrong_names.json()["errors"]} == {"/layers", "/layers/0"}
    wrong_coordinates = client.post("/v1/predictors/nope/kernels", json={"coordinates": [[]] * 3000})
    missing = [error["pointer"] for error in wrong_coordinates.json()["errors"]]
    assert missing == ["/coordinates/0/0", "/coordinates/0/1", "/coordinates/0/2"]


def test_a_job_without_a_body_is_invalid(client: httpx.Client) -> None:
    assert is_problem(client.post("/v1/jobs", headers={"content-type": "application/json"}), 422, "invalid", "the body")


def test_data_that_cannot_be_those_of_the_network_is_refused(client: httpx.Client) -> None:
    def with_dataset(content: bytes) -> httpx.Response:
        dataset = client.post("/v1/datasets", files={"file": content}).json()["id"]
        return new_job(client, data={"dataset_id": dataset})

    image = np.zeros((1, 8, 8, 3), np.uint8)
    strange = npz(images=image.repeat(2, 0), labels=np.array([0, 15]))
    for content, detail in [
        (npz(images=image), "the dataset has 1 image; at least 2"),
        (dataset_file(channels=1), "1 channels, but the network takes 3"),
        (strange, "a label is 15, but the network has only 10 classes"),
    ]:
        refused = with_dataset(content)
        assert is_problem(refused, 422, "invalid", detail)
        assert [error["pointer"] for error in refused.json()["errors"]] == ["/data/dataset_id"]
    unlabelled = client.post("/v1/datasets", files={"file": npz(images=image.repeat(9, 0))}).json()["id"]
    refused = new_job(client, data={"dataset_id": unlabelled}, target={"drop": 0.5})
    assert is_problem(refused, 422, "invalid", "labels")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/target"]
    squeezenet = NetworkFacts(squeezenet1_1(weights=None).state_dict(), "torchvision/squeezenet1_1")
    with pytest.raises(UnusableImages, match="no batch norm") as impossible:
        make_plan(DecoupledRequest(), squeezenet, NoiseFacts("matched"))
    assert impossible.value.pointer == "/data/noise"


def test_a_job_that_will_not_distil_says_so(client: httpx.Client) -> None:
    for fields in ({"steps": 2}, {"recipe": "paper", "feature_map_weight": 0, "logit_weight": 0}):
        (note,) = new_job(client, data={"noise": "normal"}, **fields).json()["notes"]
        assert "nothing is distilled" in note


def test_a_job_distils_from_inputs_that_fit_the_network(client: httpx.Client) -> None:
    def with_inputs(**arrays: Any) -> httpx.Response:
        dataset = client.post("/v1/datasets", files={"file": npz(**arrays)})
        assert dataset.status_code == 201, dataset.text
        return new_job(client, data={"dataset_id": dataset.json()["id"]})

    x = np.random.default_rng(0).random((20, 3, 8, 8), np.float32)
    accepted = with_inputs(inputs=x, labels=np.arange(20) % 10)
    assert (accepted.status_code, accepted.json()["notes"]) == (202, [])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"inputs": x[:, :2]}, "its shape is any x 2 x 8 x 8, but the network takes any x 3 x any x any"),
        ({"inputs": x[:1]}, "the dataset has 1 input; at least 2"),
        ({"inputs": x, "labels": np.arange(20)}, "a label is 19, but the network has only 10 classes"),
    ]
    for arrays, detail in cases:
        refused = with_inputs(**arrays)
        assert is_problem(refused, 422, "invalid", detail)
        assert [error["pointer"] for error in refused.json()["errors"]] == ["/data/dataset_id"]


def test_a_job_whose_artefact_is_hardly_smaller_says_why(client: httpx.Client) -> None:
    weights = {
        "conv.weight": torch.zeros(16, 16, 3, 3),
        "fc1.weight": torch.zeros(500, 400),
        "fc2.weight": torch.zeros(90, 100),
    }
    checkpoint = upload(client, saved(weights)).json()["id"]
    job = {"checkpoint_id": checkpoint, "ratio": 0.4, "hidden": None}
    _, note = new_job(client, **job).json()["notes"]
    assert "hardly smaller than the network: about " in note
    assert "instead of 845.2 kB" in note
    assert "The represented layers have 9.2 kB" in note
    assert "836.0 kB are kept" in note
    assert "fc1.weight (800.0 kB), fc2.weight (36.0 kB)" in note
    assert '"layers": "everything"' in note
    everything = new_job(client, **job, layers="everything").json()
    assert len(everything["notes"]) == 1, "only that nothing is distilled"
    _, larger = new_job(client, **job | {"ratio": 4.0}, layers="everything", bits=32).json()["notes"]
    assert "the artefact will be larger than the network" in larger
    assert "Linear layers" not in larger


def test_an_objective_is_a_word_or_one_for_each_output(client: httpx.Client) -> None:
    for objective in ("classes", "values", {"output": "values"}):
        answer = new_job(client, data={"noise": "normal"}, objective=objective)
        assert (answer.status_code, answer.json()["config"]["objective"]) == (202, objective)
    assert is_problem(new_job(client, objective="ignore"), 422, "invalid")
    assert is_problem(new_job(client, objective={"output": "labels"}), 422, "invalid")


def test_an_option_of_another_recipe_is_said_to_be_missing_in_this_one(client: httpx.Client) -> None:
    assert "there is no field 'weight_decay' in decoupled" in new_job(client, weight_decay=0.1).json()["detail"]
    assert "there is no field 'bits' in paper" in new_job(client, recipe="paper", bits=8).json()["detail"]
    both = new_job(client, data={"noise": "normal", "dataset_id": "1"})
    assert "there is no field 'dataset_id' in noise source" in both.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "pointer", "detail"),
    [
        ({"layer": "all"}, "/layer", "there is no field 'layer' in decoupled; did you mean `layers`?"),
        ({"dataset_id": "1"}, "/dataset_id", "there is no field 'dataset_id' in decoupled; it belongs into `data`"),
        ({"data": {"datset_id": "1"}}, "/data", "did you mean `dataset_id`?"),
        ({"data": "1"}, "/data", "this must be a JSON object; possible: dataset_id, noise"),
        ({"layers": "evrything"}, "/layers", "'everything'; or: "),
    ],
)
def test_a_misspelt_option_is_answered_with_what_was_meant(
    client: httpx.Client, fields: dict[str, Any], pointer: str, detail: str
) -> None:
    answer = new_job(client, **fields)
    assert is_problem(answer, 422, "invalid")
    found = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert any(each.startswith(pointer) and detail in found[each] for each in found), found
    assert "more)" not in answer.json()["detail"] or len(found) > 1


def test_a_misspelt_parameter_is_not_ignored(client: httpx.Client) -> None:
    files = {"file": ("images.npz", dataset_file())}
    answer = client.post("/v1/datasets?maen=0.5,0.5,0.5", files=files)
    assert is_problem(answer, 422, "invalid", "there is no parameter 'maen' here; did you mean `mean`?")
    assert answer.json()["errors"][0]["pointer"] == "query:maen"
    assert client.get("/v1/datasets").json()["items"] == []
    assert is_problem(client.get("/v1/jobs?states=failed"), 422, "invalid", "did you mean `state`?")
    assert client.get("/v1/jobs?state=failed&limit=3").status_code == 200
    assert client.get("/readyz?probe=1").status_code == 200


def test_a_job_for_what_does_not_exist(client: httpx.Client) -> None:
    assert is_problem(client.post("/v1/jobs", json={"checkpoint_id": "nope"}), 404, "not-found", "nope")
    assert is_problem(new_job(client, data={"dataset_id": "nope"}), 404, "not-found", "nope")
    assert is_problem(new_job(client, layers=["nope.weight"]), 422, "not-representable", "nope.weight")
    too_many = new_job(client, recipe="paper", reconstruction_steps=100_000)
    assert is_problem(too_many, 422, "invalid", "must not exceed steps")
    assert [error["pointer"] for error in too_many.json()["errors"]] == ["/reconstruction_steps"]


def test_an_idempotency_key_creates_one_job(client: httpx.Client) -> None:
    checkpoint = upload(client).json()["id"]
    made = [
        client.post("/v1/jobs", json={"checkpoint_id": checkpoint, "seed": seed}, headers={"Idempotency-Key": key})
        for key, seed in [("a", 0), ("a", 0), ("b", 0), ("a", 1)]
    ]
    assert [answer.status_code for answer in made] == [202, 202, 202, 422]
    assert made[0].json()["id"] == made[1].json()["id"] != made[2].json()["id"]
    assert is_problem(made[3], 422, "idempotency-key-reused")


def test_of_two_requests_with_one_idempotency_key_at_the_same_time_one_creates_the_job(client: httpx.Client) -> None:
    checkpoint = upload(client).json()["id"]

    def create() -> httpx.Response:
        return client.post("/v1/jobs", json={"checkpoint_id": checkpoint}, headers={"Idempotency-Key": "a"})

    first, find, found = create(), jobs.with_key, list[Job | None]()

    def too_early(session: Session, key: str) -> Job | None:
        """The first look at the table comes before the other request has written its row."""
        found.append(find(session, key) if found else None)
        return found[-1]

    with patch.object(jobs, "with_key", too_early):
        second = create()
    assert len(found) == 2
    assert (second.status_code, second.json()["id"]) == (202, first.json()["id"])
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_lists_may_be_of_one_checkpoint(client: httpx.Client) -> None:
    job = new_job(client).json()
    for url in ("/v1/jobs", "/v1/predictors"):
        assert client.get(url, params={"checkpoint_id": "another"}).json()["items"] == []
    found = client.get("/v1/jobs", params={"checkpoint_id": job["checkpoint_id"]}).json()["items"]
    assert [item["id"] for item in found] == [job["id"]]


def test_text_that_is_no_unicode_is_refused(client: httpx.Client) -> None:
    checkpoint = upload(client).json()["id"]
    for field in ('"architecture":"\\ud800"', '"layers":["\\ud800"]', '"data":{"dataset_id":"\\ud800"}'):
        body = f'{{"checkpoint_id":"{checkpoint}",{field}}}'
        answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 404, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert is_problem(client.post("/v1/jobs", json={}, headers={"Idempotency-Key": ""}), 422, "invalid")


def test_pausing_resuming_and_retrying(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]

    def asked(action: str) -> tuple[int, str]:
        answer = client.post(f"/v1/jobs/{id}/{action}")
        return answer.status_code, answer.json().get("state", answer.json().get("detail"))

    for action, state in (("resume", "queued"), ("retry", "queued"), ("pause", "paused"), ("pause", "paused")):
        assert asked(action) == (202, state), action
    assert asked("retry") == (409, f"job {id} is paused, so it can't be retried")
    with patch.object(Polling, "wake") as woken:
        assert asked("resume") == (202, "queued")
        woken.assert_called_once_with()
    with database.write() as session:
        lease = jobs.claim(session, holder="worker", now=datetime.now(UTC), lease=timedelta(hours=1))
    assert lease is not None
    for action in ("pause", "resume", "retry"):
        assert asked(action) == (202, "running"), action
    with database.write() as session:
        jobs.finish(session, lease, "failed", now=datetime.now(UTC), error={"type": "internal", "detail": "d"})
    assert asked("pause") == (409, f"job {id} has failed, so it can't be paused")
    assert asked("resume") == (409, f"job {id} has failed, so it can't be resumed")
    with patch.object(Polling, "wake") as woken:
        assert asked("retry") == (202, "queued")
        woken.assert_called_once_with()
    assert (client.get(f"/v1/jobs/{id}").json()["error"], client.get(f"/v1/jobs/{id}").json()["attempt"]) == (None, 0)
    assert is_problem(client.post("/v1/jobs/nope/pause"), 404, "not-found")


def test_where_a_retry_starts_is_in_the_body(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]
    url = f"/v1/jobs/{id}/retry"

    def fail() -> None:
        with database.write() as session:
            lease = jobs.claim(session, holder="worker", now=datetime.now(UTC), lease=timedelta(hours=1))
            assert lease is not None
            snapshots.add(
                session,
                lease,
                step=5,
                sha256="",
                size=1,
                progress={"phase": "reconstruction", "step": 5, "steps": 9, "fraction": 0.5, "steps_per_second": 1.0},
                metrics={},
                now=datetime.now(UTC),
            )
            jobs.finish(session, lease, "cancelled", now=datetime.now(UTC))

    for body, step in ((None, 5), ({}, 5), ({"from": "snapshot"}, 5), ({"from": "start"}, None)):
        fail()
        answer = client.post(url, json=body) if body is not None else client.post(url)
        assert answer.status_code == 202
        shown = answer.json()["progress"]
        assert (shown and shown["step"]) == step, body
    assert is_problem(client.post(url, json={"from": "here"}), 422, "invalid")
    assert is_problem(client.post(url, json={"form": "start"}), 422, "invalid", "did you mean `from`?")


def test_a_job_without_its_inputs_cannot_be_retried(client: httpx.Client) -> None:
    job = new_job(client).json()
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.delete(f"/v1/checkpoints/{job['checkpoint_id']}").status_code == 204
    answer = client.post(f"/v1/jobs/{job['id']}/retry")
    assert is_problem(answer, 409, "impossible-in-this-state", f"there is no checkpoint {job['checkpoint_id']}")
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_cancelling(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    failed = new_job(client, seed=1).json()["id"]
    finish(database, failed, "failed")
    assert is_problem(client.post(f"/v1/jobs/{failed}/cancel"), 409, "impossible-in-this-state", "failed")
    assert is_problem(client.post("/v1/jobs/nope/cancel"), 404, "not-found")


def test_deleting_a_job_and_its_predictor(client: httpx.Client, database: Database, settings: Settings) -> None:
    predictor = store_predictor(database, resnet8())
    with database.write() as session:
        job = session.get_one(Predictor, predictor).job_id
        session.get_one(Job, job).predictor_id = predictor
    assert client.get("/v1/usage").json()["predictors"]["count"] == 1
    assert is_problem(client.delete(f"/v1/jobs/{job}"), 409, "in-use", predictor)
    assert client.delete(f"/v1/predictors/{predictor}").status_code == 204
    for path in ("", "/file", "/weights", "/layers"):
        assert client.get(f"/v1/predictors/{predictor}{path}").status_code == 404
    assert client.get(f"/v1/jobs/{job}").json()["predictor_id"] is None
    with database.read() as session:
        assert session.query(PredictorChunk).count() == 0
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get(f"/v1/jobs/{job}").status_code == 404
    for path in (f"/v1/jobs/{job}", f"/v1/predictors/{predictor}"):
        assert is_problem(client.delete(path), 404, "not-found")


def test_a_job_that_is_not_over_is_not_deleted(client: httpx.Client, database: Database, settings: Settings) -> None:
    id = new_job(client).json()["id"]
    assert is_problem(client.delete(f"/v1/jobs/{id}"), 409, "impossible-in-this-state", "queued")
    with database.write() as session:
        lease = jobs.claim(session, holder="worker", now=datetime.now(UTC), lease=timedelta(hours=1))
        assert lease is not None
        snapshots.add(session, lease, step=5, sha256="", size=1, progress=None, metrics={}, now=datetime.now(UTC))
    snapshot = settings.data_dir / "blobs" / blobs.snapshot(id, 1, 5)
    snapshot.parent.mkdir(parents=True)
    snapshot.write_bytes(b"")
    assert is_problem(client.delete(f"/v1/jobs/{id}"), 409, "impossible-in-this-state", "running")
    usage = client.get("/v1/usage").json()
    assert (usage["snapshots"], usage["jobs"]["count"], usage["events"]["count"]) == ({"count": 1, "bytes": 1}, 1, 2)
    with database.write() as session:
        jobs.finish(session, lease, "cancelled", now=datetime.now(UTC))
    assert client.delete(f"/v1/jobs/{id}").status_code == 204
    until(lambda: not snapshot.exists(), what="the end of the snapshot")
    assert client.get("/v1/usage").json()["events"]["count"] == 0


def test_usage_counts_what_is_stored(client: httpx.Client) -> None:
    nothing = {"count": 0, "bytes": 0}
    kinds = ("checkpoints", "datasets", "predictors", "snapshots", "uploads", "jobs", "events")
    assert client.get("/v1/usage").json() == {**dict.fromkeys(kinds, nothing), "owners": {}}
    made = upload(client).json()
    assert client.get("/v1/usage").json()["checkpoints"] == {"count": 1, "bytes": made["size"]}
    client.delete(f"/v1/checkpoints/{made['id']}")
    assert client.get("/v1/usage").json()["checkpoints"] == nothing


WEBHOOK = {"url": "https://1.1.1.1/hook", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


def test_a_webhook_is_shown_without_its_secret(client: httpx.Client) -> None:
    answer = new_job(client, webhook=WEBHOOK)
    assert answer.status_code == 202
    id = answer.json()["id"]
    assert answer.json()["webhook"] == WEBHOOK["url"]
    assert client.get(f"/v1/jobs/{id}/deliveries").json() == []
    with patch("service.webhooks.sender._send", side_effect=ConnectionError("no route to host")):
        client.post(f"/v1/jobs/{id}/cancel")
        [delivery] = until(
            lambda: [found for found in client.get(f"/v1/jobs/{id}/deliveries").json() if found["attempts"]], what="an attempt"
        )
    assert (delivery["type"], delivery["state"], delivery["attempts"][0]["status"]) == ("job.cancelled", "pending", None)
    assert "no route to host" in delivery["attempts"][0]["error"]
    for path in ("", f"/{id}", f"/{id}/events", f"/{id}/deliveries"):
        assert "whsec" not in client.get(f"/v1/jobs{path}").text
    assert is_problem(client.get("/v1/jobs/nope/deliveries"), 404, "not-found")


@pytest.mark.parametrize(
    ("webhook", "pointer"),
    [
        ({**WEBHOOK, "url": "http://127.0.0.1/"}, "/webhook/url"),
        ({**WEBHOOK, "url": "http://169.254.169.254/latest/meta-data"}, "/webhook/url"),
        ({**WEBHOOK, "url": "nonsense"}, "/webhook/url"),
        ({**WEBHOOK, "secret": "short"}, "/webhook/secret"),
        ({"url": WEBHOOK["url"]}, "/webhook/secret"),
        ({**WEBHOOK, "uri": "x"}, "/webhook/uri"),
    ],
)
def test_a_webhook_that_can_not_be_sent_is_refused_at_once(client: httpx.Client, webhook: dict[str, str], pointer: str) -> None:
    answer = new_job(client, webhook=webhook)
    assert is_problem(answer, 422, "invalid")
    assert pointer in [error["pointer"] for error in answer.json()["errors"]], answer.json()


@pytest.mark.parametrize("priority", [-11, 11, 0.5, "high"])
def test_priorities_are_from_minus_ten_to_ten(client: httpx.Client, priority: Any) -> None:
    assert is_problem(new_job(client, priority=priority), 422, "invalid")
    assert [new_job(client, priority=allowed).json()["priority"] for allowed in (-10, 10)] == [-10, 10]
