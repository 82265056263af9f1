"""Several owners share a service: each sees its own things, and can't tell those of another from nothing."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import func, select

from service.access import tokens
from service.api.app import create_app
from service.settings import Settings
from service.store import retention
from service.store.database import Away, Database
from service.store.ids import new_id
from service.store.tables import ApiKey, Job, Owned, Upload, Worker
from tests.support import rows
from tests.support.calls import NETWORK, is_problem, new_job, upload
from tests.support.networks import dataset_file, resnet8
from tests.support.stored import store_predictor
from tests.support.tus import RESUMABLE, begin, create

OURS, THEIRS, SERVICE = ("o" * 16, "t" * 16, "s" * 16)
KEYS = f"admin@team-ours:{OURS},admin@team-theirs:{THEIRS},admin:{SERVICE},read@team-theirs:{'r' * 16}"


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return create_app(settings.model_copy(update={"api_keys": SecretStr(KEYS)}))


def with_key(client: httpx.Client, key: str) -> httpx.Client:
    """The client, with the key of a sender. All its requests have the same id, which problems tell."""
    client.headers.update({"authorization": f"Bearer {key}", "x-request-id": "same"})
    return client


@pytest.fixture
def ids(client: httpx.Client, database: Database) -> dict[str, str]:
    """One thing of each kind of the other team, by the name of the collection."""
    with_key(client, THEIRS)
    job = new_job(client).json()
    made = {
        "checkpoints": job["checkpoint_id"],
        "datasets": client.post("/v1/datasets", files={"file": dataset_file()}).json()["id"],
        "jobs": job["id"],
        "uploads": begin(client, 10).rpartition("/")[2],
        "predictors": store_predictor(database.of("team-theirs"), resnet8()),
        "keys": client.post("/v1/keys", json={"scope": "read"}).json()["id"],
    }
    with_key(client, OURS)
    return made


def operations(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every documented route."""
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path


def send(client: httpx.Client, method: str, path: str, id: str) -> tuple[int, str]:
    """Sends a request about a thing. Returns status and body, with the id taken out."""
    address = path.replace("{id}", id).replace("{name}", "layers").replace("{kind}", "predictors")
    headers = {**RESUMABLE, "upload-offset": "0"} if "/uploads" in path else {}
    sent: dict[str, Any] = {}
    if path.endswith("/graph"):
        sent = {"files": {"file": ("net.pt", NETWORK)}}
    elif method == "PATCH":
        headers["content-type"], sent = "application/offset+octet-stream", {"content": b"abc"}
    elif path.endswith("/readers") and method == "PUT":
        sent = {"json": {"readers": ["team-ours"]}}
    elif path.endswith("/kernels") and method == "POST":
        sent = {"json": {"coordinates": [[0, 0, 0]]}}
    answer = client.request(method, address, headers=headers, **sent)
    return answer.status_code, answer.text.replace(id, "ID")


def test_no_route_tells_the_things_of_another_owner_from_nothing(
    app: FastAPI, client: httpx.Client, database: Database, ids: dict[str, str]
) -> None:
    asked = 0
    before = {kind: show(with_key(client, THEIRS), kind, id) for kind, id in ids.items()}
    with_key(client, OURS)
    for method, path in operations(app):
        _, _, kind, *rest = path.split("/") if path.startswith("/v1/") else ("", "", "")
        if not rest:
            continue
        id = ids["predictors" if kind == "{kind}" else kind]
        theirs, nothing = (send(client, method, path, id) for id in (id, new_id()))
        assert theirs == nothing, (method, path)
        assert theirs[0] == 404, (method, path, theirs)
        asked += 1
    assert asked > 25
    with_key(client, THEIRS)
    assert before == {kind: show(client, kind, id) for kind, id in ids.items()}


def show(client: httpx.Client, kind: str, id: str) -> Any:
    answer = client.get(f"/v1/{kind}/{id}/layers" if kind == "predictors" else f"/v1/{kind}/{id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_lists_have_the_owners_things_alone(client: httpx.Client, ids: dict[str, str]) -> None:
    for kind in ("checkpoints", "datasets", "jobs", "predictors"):
        assert client.get(f"/v1/{kind}").json()["items"] == []
        assert client.get(f"/v1/{kind}?cursor=").status_code in (200, 422)
    assert client.get("/v1/keys").json() == []
    assert client.get(f"/v1/jobs?checkpoint_id={ids['checkpoints']}").json()["items"] == []
    assert client.get(f"/v1/predictors?checkpoint_id={ids['checkpoints']}").json()["items"] == []


def test_a_job_can_use_nothing_of_another_owner(client: httpx.Client, ids: dict[str, str]) -> None:
    mine = upload(client).json()["id"]
    for body in (
        {"checkpoint_id": ids["checkpoints"]},
        {"checkpoint_id": mine, "data": {"dataset_id": ids["datasets"]}},
    ):
        text = json.dumps(body)
        unknown = json.loads(text.replace(ids["checkpoints"], (no := new_id())).replace(ids["datasets"], no))
        theirs, nothing = (client.post("/v1/jobs", json=sent) for sent in (body, unknown))
        assert (theirs.status_code, nothing.status_code) == (404, 404)
        assert theirs.json()["type"] == nothing.json()["type"]


def test_the_same_bytes_are_another_checkpoint_for_another_owner(client: httpx.Client, ids: dict[str, str]) -> None:
    answer = upload(client)
    assert answer.status_code == 201
    assert answer.json()["id"] != ids["checkpoints"]
    assert upload(client).status_code == 200
    data = client.post("/v1/datasets", files={"file": dataset_file()})
    assert data.status_code == 201
    assert data.json()["id"] != ids["datasets"]


@pytest.mark.usefixtures("ids")
def test_an_owner_without_checkpoints_takes_no_blob_store_for_a_new_one(client: httpx.Client, settings: Settings) -> None:
    """As where nothing is mounted, while another owner has checkpoints."""
    blobs = settings.data_dir / "blobs"
    blobs.rename(settings.data_dir / "elsewhere")
    assert is_problem(upload(client), 503, "unavailable", "the blob store is not that of the service")
    assert not blobs.exists()


def test_an_idempotency_key_is_the_owners_own(client: httpx.Client) -> None:
    made = []
    for key in (OURS, THEIRS, OURS):
        with_key(client, key)
        body = {"checkpoint_id": upload(client).json()["id"]}
        made.append(client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "same"}).json()["id"])
    assert made[0] == made[2] != made[1]


def test_what_an_upload_becomes_has_its_owner(client: httpx.Client, database: Database) -> None:
    with_key(client, OURS)
    resource = create(client, len(NETWORK), content=NETWORK).headers["nern-resource"]
    assert client.get(resource).status_code == 200
    assert client.get(resource, headers={"authorization": f"Bearer {THEIRS}"}).status_code == 404


def test_usage_is_told_to_each_owner_and_of_all_owners_to_the_service(client: httpx.Client, ids: dict[str, str]) -> None:
    assert client.get("/v1/usage").json()["checkpoints"] == {"count": 0, "bytes": 0}
    assert client.get("/v1/usage").json()["events"]["count"] == 0
    assert client.get("/v1/usage").json()["owners"] is None
    with_key(client, THEIRS)
    theirs = client.get("/v1/usage").json()
    assert theirs["checkpoints"]["count"] == 2  # that of the predictor, too
    assert theirs["events"]["count"] == 1
    with_key(client, SERVICE)
    whole = client.get("/v1/usage").json()
    assert whole["checkpoints"]["count"] == 0
    parts = ("checkpoints", "datasets", "predictors", "uploads")
    assert whole["owners"] == {"team-theirs": sum(theirs[kind]["bytes"] for kind in parts)}


def test_workers_and_the_queue_show_no_job_of_another_owner(
    client: httpx.Client, database: Database, ids: dict[str, str]
) -> None:
    now = datetime.now(UTC)
    with database.write() as session:
        about = {"host": "h", "process": 1, "device": "cpu", "device_name": "c", "release": "0"}
        session.add(Worker(id="w", about=about, free_memory=1, started_at=now, seen_at=now))
        job = session.get_one(Job, ids["jobs"])
        job.state, job.lease_owner, job.progress = (
            "running",
            "w",
            {"phase": "x", "step": 1, "steps": 2, "fraction": 0.5, "steps_per_second": 1},
        )
    for key, seen in ((OURS, False), (THEIRS, True), (SERVICE, True)):
        with_key(client, key)
        [worker] = client.get("/v1/workers").json()
        assert (worker["busy"], worker["job_id"], worker["progress"] is None) == (True, ids["jobs"] if seen else None, not seen)
        assert client.get("/v1/queue").json()["running"] == int(seen)


def test_a_stream_that_begins_while_the_database_is_away_shows_nothing_of_another_owner(
    client: httpx.Client, ids: dict[str, str]
) -> None:
    from service.api import events

    exists, answers = events._exists, [Away, Away]

    def away_at_first(context: Any, id: str) -> None:
        if answers:
            raise answers.pop()
        exists(context, id)

    with patch("service.api.events._exists", away_at_first):
        text = client.get(f"/v1/jobs/{ids['jobs']}/events", headers={"accept": "text/event-stream"}).text
    assert "data:" not in text


def test_a_session_of_an_owner_reaches_only_its_rows_however_it_asks(database: Database) -> None:
    """Every way that SQLAlchemy has to find, count, change and delete rows."""
    ours, theirs = database.of("ours"), database.of("theirs")
    with theirs.write() as session:
        checkpoint = rows.checkpoint()
        session.add(checkpoint)
        session.flush()
        session.add(rows.job(checkpoint.id))
    assert {table.__name__ for table in Owned.__subclasses__()} == {"Checkpoint", "Dataset", "Job", "Predictor", "Upload"}
    with ours.write() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        assert session.scalar(select(func.count(Job.id))) == 0
        assert session.scalar(select(Job.id)) is None
        assert session.execute(select(Job.state, Job.priority)).all() == []
        assert session.query(Job).count() == 0
        assert session.query(Job).update({"priority": 9}) == 0
        assert session.query(Job).delete() == 0
        assert retention.usage(session)["jobs"] == (0, 0)
    with database.read() as session:
        job = session.scalars(select(Job)).one()
        assert (job.owner, job.priority) == ("theirs", 0)
    with ours.read() as session:
        assert session.get(Job, job.id) is None
    with theirs.read() as session:
        assert session.get(Job, job.id) is not None


def test_a_key_is_created_shown_once_and_revoked(client: httpx.Client, database: Database) -> None:
    with_key(client, THEIRS)
    made = client.post("/v1/keys", json={"scope": "write", "name": "ci"})
    assert made.status_code == 201
    key = made.json()["key"]
    assert tokens.is_key(key)
    shown = client.get(made.headers["location"]).json()
    assert {name: value for name, value in made.json().items() if name != "key"} == shown
    assert (shown["owner"], shown["scope"], shown["start"], shown["last_used_at"]) == ("team-theirs", "write", key[:9], None)
    with database.read() as session:
        assert key not in str(vars(session.scalars(select(ApiKey)).one()))
    with_key(client, key)
    assert upload(client).status_code == 201
    assert is_problem(client.get("/v1/keys"), 403, "forbidden", "scope admin")
    with_key(client, THEIRS)
    assert client.get(made.headers["location"]).json()["last_used_at"]
    assert client.delete(made.headers["location"]).status_code == 204
    assert client.get(made.headers["location"]).json()["revoked_at"]
    assert is_problem(with_key(client, key).get("/v1/jobs"), 401, "unauthorized")


def test_a_key_ends_when_it_expires(client: httpx.Client) -> None:
    with_key(client, THEIRS)
    ends = datetime.now(UTC) + timedelta(hours=1)
    key = client.post("/v1/keys", json={"scope": "read", "expires_at": ends.isoformat()}).json()["key"]
    for never in ("9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00"):
        assert is_problem(client.post("/v1/keys", json={"scope": "read", "expires_at": never}), 422, "invalid", "9999")
    assert with_key(client, key).get("/v1/jobs").status_code == 200
    with patch("service.access.keys.now", lambda session: ends + timedelta(seconds=1)):
        assert client.get("/v1/jobs").status_code == 401
    past = client.post(
        "/v1/keys", json={"scope": "read", "expires_at": "2020-01-01T00:00:00Z"}, headers={"authorization": f"Bearer {THEIRS}"}
    )
    assert is_problem(past, 422, "invalid", "ahead")


def test_a_rotated_key_stays_valid_for_the_overlap(client: httpx.Client) -> None:
    made = with_key(client, THEIRS).post("/v1/keys", json={"scope": "read", "name": "ci"}).json()
    for overlap, status in ((1.0, 200), (0.0, 401)):
        with_key(client, THEIRS)
        rotated = client.post(f"/v1/keys/{made['id']}/rotate", json={"overlap_hours": overlap})
        assert rotated.status_code == 201
        assert rotated.json()["key"] != made["key"]
        assert (rotated.json()["scope"], rotated.json()["name"]) == ("read", "ci")
        assert with_key(client, made["key"]).get("/v1/jobs").status_code == status
        assert with_key(client, rotated.json()["key"]).get("/v1/jobs").status_code == 200


def test_a_key_that_was_revoked_is_not_rotated(client: httpx.Client) -> None:
    made = with_key(client, THEIRS).post("/v1/keys", json={"scope": "read"}).json()
    client.delete(f"/v1/keys/{made['id']}")
    assert is_problem(client.post(f"/v1/keys/{made['id']}/rotate"), 409, "impossible-in-this-state", "not valid any more")
    assert len(client.get("/v1/keys").json()) == 1


def test_a_key_of_an_owner_makes_no_key_of_another_owner(client: httpx.Client) -> None:
    with_key(client, THEIRS)
    for owner in ("team-ours", ""):
        assert is_problem(client.post("/v1/keys", json={"scope": "read", "owner": owner}), 403, "forbidden")
    assert client.post("/v1/keys", json={"scope": "read", "owner": "Team Ours"}).status_code == 422
    with_key(client, SERVICE)
    made = client.post("/v1/keys", json={"scope": "read", "owner": "team-new"}).json()
    assert made["owner"] == "team-new"
    assert [key["owner"] for key in client.get("/v1/keys").json()] == ["team-new"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "Bearer nern_x", f"Bearer {'x' * 16}", "unknown"])
def test_a_request_without_a_valid_key_is_refused(client: httpx.Client, authorization: str) -> None:
    sent = f"Bearer {tokens.make()}" if authorization == "unknown" else authorization
    answer = client.get("/v1/jobs", headers={"authorization": sent} if sent else {})
    assert is_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_that_can_not_be_checked_is_no_wrong_key(client: httpx.Client) -> None:
    with patch("service.access.keys.keys.valid", side_effect=Away):
        assert is_problem(with_key(client, tokens.make()).get("/v1/jobs"), 503, "unavailable")
        assert with_key(client, THEIRS).get("/v1/jobs").status_code == 200


def test_an_upload_of_another_owner_is_not_touched(client: httpx.Client, database: Database, ids: dict[str, str]) -> None:
    address = f"/v1/uploads/{ids['uploads']}"
    assert client.delete(address, headers=RESUMABLE).status_code == 404
    with database.read() as session:
        assert session.get_one(Upload, ids["uploads"]).state == "receiving"


def test_what_is_shared_can_be_read_and_nothing_else(
    app: FastAPI, client: httpx.Client, database: Database, ids: dict[str, str]
) -> None:
    """Every route: a reader gets what the owner gets from GET, and from all others what a stranger gets."""
    for readers in (["team-ours", "team-third"], ["*"]):
        with_key(client, THEIRS)
        shared = ("checkpoints", "datasets", "jobs", "predictors")
        for kind in shared:
            answer = client.put(f"/v1/{kind}/{ids[kind]}/readers", json={"readers": readers})
            assert answer.json() == {"readers": sorted(readers)}
            assert client.get(f"/v1/{kind}/{ids[kind]}/readers").json() == {"readers": sorted(readers)}
        for method, path in operations(app):
            _, _, kind, *rest = path.split("/") if path.startswith("/v1/") else ("", "", "")
            # The predictor of this test has no report. A stream of events ends with its job.
            reports = path == "/v1/predictors/{id}" or path.endswith(".svg")
            if kind not in shared or not rest or (method == "GET" and reports):
                continue
            reads = method == "GET" or path.endswith("/kernels")
            if path.endswith("/deliveries"):  # tells of the owner's servers
                reads = False
            answers = [send(with_key(client, key), method, path, ids[kind]) for key in ([THEIRS, OURS] if reads else [OURS])]
            assert answers[0] == answers[-1] if reads else answers[0][0] == 404, (method, path, answers)
        with_key(client, OURS)
        for kind in shared:
            assert client.get(f"/v1/{kind}").json()["items"] == []
            listed = client.get(f"/v1/{kind}?shared=true").json()["items"] if kind != "predictors" else [{"id": ids[kind]}]
            assert [item["id"] for item in listed] == [ids[kind]]
    with_key(client, THEIRS).put(f"/v1/jobs/{ids['jobs']}/readers", json={"readers": []})
    assert with_key(client, OURS).get(f"/v1/jobs/{ids['jobs']}").status_code == 404


def test_a_job_of_a_reader_uses_what_is_shared_and_keeps_it_from_deletion(client: httpx.Client, ids: dict[str, str]) -> None:
    with_key(client, THEIRS)
    for kind in ("checkpoints", "datasets"):
        client.put(f"/v1/{kind}/{ids[kind]}/readers", json={"readers": ["team-ours"]})
    client.post(f"/v1/jobs/{ids['jobs']}/cancel")
    with_key(client, OURS)
    body = {"checkpoint_id": ids["checkpoints"], "data": {"dataset_id": ids["datasets"]}}
    job = client.post("/v1/jobs", json=body)
    assert job.status_code == 202
    assert job.json()["owner"] == "team-ours"
    with_key(client, THEIRS)
    for kind in ("checkpoints", "datasets"):
        assert is_problem(client.delete(f"/v1/{kind}/{ids[kind]}"), 409, "in-use")
    assert client.get(f"/v1/jobs/{job.json()['id']}").status_code == 404


def test_a_reader_does_not_see_the_webhook_of_a_job(client: httpx.Client) -> None:
    hook = {"url": "https://1.1.1.1/hook", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    job = new_job(with_key(client, THEIRS), webhook=hook).json()
    client.put(f"/v1/jobs/{job['id']}/readers", json={"readers": ["*"]})
    assert client.get(f"/v1/jobs/{job['id']}").json()["webhook"] == hook["url"]
    with_key(client, OURS)
    assert client.get(f"/v1/jobs/{job['id']}").json()["webhook"] is None
    assert client.get("/v1/jobs?shared=true").json()["items"][0]["webhook"] is None


@pytest.mark.parametrize("readers", [["Team"], [""], ["a b"], ["**"], "team-ours"])
def test_readers_are_owners_or_everyone(client: httpx.Client, ids: dict[str, str], readers: Any) -> None:
    with_key(client, THEIRS)
    assert client.put(f"/v1/jobs/{ids['jobs']}/readers", json={"readers": readers}).status_code == 422
