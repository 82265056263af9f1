"""The HTTP contract: the events of a job."""

import json
from unittest.mock import patch

import httpx
import pytest

from service.store.database import Away, Database
from tests.support.calls import finish, is_problem, new_job


def test_events_as_pages(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]
    finish(database, id, "failed")
    first = client.get(f"/v1/jobs/{id}/events", params={"limit": 2}).json()
    assert [(event["number"], event["kind"], event["data"]["state"]) for event in first["items"]] == [
        (1, "state", "queued"), (2, "state", "running"),
    ]  # fmt: skip
    rest = client.get(f"/v1/jobs/{id}/events", params={"cursor": first["next_cursor"]}).json()
    assert [event["data"]["state"] for event in rest["items"]] == ["failed"]
    assert rest["next_cursor"] is None
    for cursor in ("%%%", "YWJj"):
        assert is_problem(client.get(f"/v1/jobs/{id}/events", params={"cursor": cursor}), 422, "invalid", "cursor")


@pytest.mark.parametrize(("last", "expected"), [(None, ["1", "2", "3"]), ("2", ["3"]), ("3", [])])
def test_events_as_a_stream_end_with_the_job(
    client: httpx.Client, database: Database, last: str | None, expected: list[str]
) -> None:
    id = new_job(client).json()["id"]
    headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
    with client.stream("GET", f"/v1/jobs/{id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        next(lines)
        # The stream is open, and only now the job ends.
        finish(database, id, "failed")
        received = list(lines)
    assert [line.removeprefix("id: ") for line in received if line.startswith("id: ")] == expected
    data = [json.loads(line.removeprefix("data: ")) for line in received if line.startswith("data: ")]
    if expected:
        assert data[-1] == {"state": "failed", "error": {"type": "t", "detail": "d"}}
    again = client.get(f"/v1/jobs/{id}/events", headers={"accept": "text/event-stream", "last-event-id": "3"})
    assert again.status_code == 204, "browsers connect again until they are told that there is no more"


def test_a_quiet_stream_says_now_and_then_that_it_is_still_there(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]
    with (
        patch("service.api.events.KEEP_ALIVE_SECONDS", 0),
        client.stream("GET", f"/v1/jobs/{id}/events", headers={"accept": "text/event-stream"}) as answer,
    ):
        lines = answer.iter_lines()
        assert ": no events" in lines
        finish(database, id, "failed")
        assert "event: state" in lines


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"after": 1}, [2, 3]),
        ({"after": 3}, []),
        ({"tail": 2}, [2, 3]),
        ({"tail": 1000}, [1, 2, 3]),
        ({"after": 0, "limit": 1}, [1]),
    ],
)
def test_later_and_newest_events(client: httpx.Client, database: Database, query: dict[str, int], numbers: list[int]) -> None:
    id = new_job(client).json()["id"]
    finish(database, id, "failed")
    page = client.get(f"/v1/jobs/{id}/events", params=query).json()
    assert [event["number"] for event in page["items"]] == numbers
    for wrong in ({"after": -1}, {"tail": 0}, {"tail": "x"}):
        assert is_problem(client.get(f"/v1/jobs/{id}/events", params=wrong), 422, "invalid")


def test_a_stream_may_begin_after_a_number(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]
    finish(database, id, "failed")
    answer = client.get(f"/v1/jobs/{id}/events", params={"after": 2}, headers={"accept": "text/event-stream"})
    assert [line for line in answer.text.splitlines() if line.startswith("id:")] == ["id: 3"]
    assert client.get(f"/v1/jobs/{id}/events?after=3", headers={"accept": "text/event-stream"}).status_code == 204


def test_a_browser_that_connects_while_the_database_is_away_gets_a_stream(client: httpx.Client, database: Database) -> None:
    """An EventSource gives up for good after an answer that is an error."""
    id = new_job(client).json()["id"]
    finish(database, id, "failed")
    with (
        patch("service.api.events._exists", side_effect=[Away, Away, None]),
        client.stream("GET", f"/v1/jobs/{id}/events", headers={"accept": "text/event-stream"}) as answer,
    ):
        assert answer.status_code == 200
        assert "id: 3" in answer.iter_lines()
