"""The dashboard of Grafana, and its picture in the documents."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import promql_parser

from scripts.dashboard import DASHBOARD, POINTS, draw
from tests.support.promql import selectors
from tests.test_structure import ROOT

ALL = json.loads(DASHBOARD.read_text())["panels"]
PANELS = [panel for panel in ALL if panel["type"] != "row"]


def test_the_dashboard_is_in_order() -> None:
    ids = [panel["id"] for panel in ALL]
    assert len(set(ids)) == len(ids)
    places = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in ALL]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            # Every selector takes the namespace that was chosen, and every legend the labels that are there.
            selectors_of = list(selectors(promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))))
            assert all("namespace" in [each.name for each in one.matchers.matchers] for one in selectors_of), target["expr"]
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = set(re.findall(r"\w+", ",".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert labels - {"instance"} <= kept, target["legendFormat"]


def test_the_picture_shows_each_panel_with_what_prometheus_answers(tmp_path: Path) -> None:
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})
            labels = {"state": "queued", "device": "cuda", "job_id": "0190abcd-ef01-2345-6789-abcdefabcdef", "check": "blobs"}
            values = [[1000.0, "0.5"], [1060.0, "0.75"]]
            answer = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": labels, "values": values}]}}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
            draw(client, 1000.0, 600.0, 5.0, tmp_path / "picture.svg")
        server.shutdown()
        thread.join()
    assert [each["query"] for each in asked] == [
        target["expr"].replace("$namespace", ".*").replace("$__rate_interval", "20s")
        for panel in PANELS
        for target in panel["targets"]
    ]
    assert {(each["start"], each["end"], each["step"]) for each in asked} == {("1000.0", "1600.0", str(600 / POINTS))}
    drawn = text_of(tmp_path / "picture.svg")
    assert {panel["title"] for panel in ALL} <= drawn
    assert {"queued cuda", "abcdef", "blobs"} <= drawn


def test_the_picture_in_the_documents_is_of_this_dashboard() -> None:
    assert {panel["title"] for panel in ALL} <= text_of(ROOT / "docs/dashboard.svg")
    assert "(dashboard.svg)" in (ROOT / "docs/metrics.md").read_text()


def text_of(picture: Path) -> set[str]:
    """The texts in an SVG file."""
    return set(re.findall(r"<text[^>]*>([^<]+)</text>", picture.read_text()))
