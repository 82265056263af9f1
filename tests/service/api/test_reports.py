"""The answers about a job and its predictor are those that the OpenAPI document describes."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from service.api.app import create_app
from service.api.reports import Metrics, Report, StateChange
from tests.support.networks import dataset_file, resnet8
from tests.support.place import Place
from tests.support.schemas import answer_schema, undocumented

DOCUMENTED = (Path(__file__).parents[3] / "docs/report.md").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "data")
    yield place
    place.database.close()


def answers(place: Place, *paths: str) -> list[Any]:
    async def ask() -> list[Any]:
        app = create_app(place.settings)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return [(await client.get(path)).raise_for_status().json() for path in paths]

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "wanted",
    [
        {"hidden": None, "target": {"drop": 50.0}, "bits": 4, "importance": True, "steps": 9},
        {"architecture": None, "dataset": None},
    ],
)
def test_all_that_a_finished_job_tells_is_documented(place: Place, wanted: dict[str, Any]) -> None:
    id = place.add(resnet8(), **{"architecture": "cifar/resnet8", "dataset": dataset_file(), **wanted})
    assert place.worker.work()
    url, made = f"/v1/jobs/{id}", f"/v1/predictors/{place.job(id).predictor_id}"
    document, job, events, predictor = answers(place, "/openapi.json", url, f"{url}/events?limit=200", made)
    assert job["state"] == "succeeded"
    assert undocumented(job, answer_schema(document, "/v1/jobs/{id}"), document) == []
    assert undocumented(predictor, answer_schema(document, "/v1/predictors/{id}"), document) == []
    assert {event["kind"] for event in events["items"]} == {"progress", "metrics", "state"}
    assert undocumented(events, answer_schema(document, "/v1/jobs/{id}/events"), document) == []
    assert bool(predictor["report"]["importance"]) == bool(wanted.get("importance"))


def test_events_have_a_type_a_kind() -> None:
    from service.api.events import EVENTS

    schema = EVENTS.json_schema()
    kinds = schema["items"]["discriminator"]["mapping"]
    data = {kind: schema["$defs"][place.rpartition("/")[2]]["properties"]["data"]["$ref"] for kind, place in kinds.items()}
    assert data == {
        "progress": "#/$defs/Progress",
        "metrics": "#/$defs/Metrics",
        "state": "#/$defs/StateChange",
        "resumed": "#/$defs/Resumption",
    }


def test_fields_without_a_type_are_answered_and_absent_ones_stay_absent() -> None:
    state = {"state": "queued", "why": {"a": [1]}}
    assert TypeAdapter(StateChange).validate_python(state) == state
    metrics = {"accuracy": None, "other": 0.5}
    assert TypeAdapter(Metrics).validate_python(metrics) == metrics


def test_every_field_of_a_report_is_explained() -> None:
    for name in TypeAdapter(Report).json_schema()["properties"]:
        assert re.search(rf"`{name}[`.]", DOCUMENTED), name
