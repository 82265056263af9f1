"""docs/metrics.md has every metric, and the metrics keep to the conventions of Prometheus."""

import re
import shutil
import subprocess
from pathlib import Path

from prometheus_client.openmetrics import parser

from service.settings import Settings
from tests.support.metrics import Described, exposed, scraping
from tests.test_structure import ROOT

DOCUMENT = (ROOT / "docs/metrics.md").read_text()


def test_every_metric_is_documented_with_its_kind_and_labels(tmp_path: Path) -> None:
    documented = {
        name: Described(kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(nern_\w+)` \| (\w+) \|(.*?)\|", DOCUMENT, re.MULTILINE)
    }
    found = exposed(tmp_path)
    assert documented == {name: each for name, each in found.items() if name.startswith("nern_")}
    of_the_process = {name for name in found if not name.startswith("nern_")}
    assert of_the_process == set(re.findall(r"`(process_\w+)`", DOCUMENT))


def test_names_keep_to_the_conventions_of_prometheus(tmp_path: Path) -> None:
    for name, metric in exposed(tmp_path).items():
        assert re.fullmatch(r"(nern|process)_[a-z_]+", name), name
        assert name.endswith("_total") == (metric.kind == "counter"), name
        # Base units: https://prometheus.io/docs/practices/naming/
        assert not re.search(r"_(milliseconds|ms|minutes|hours|kilobytes|mib|percent|count|sum|bucket)\b", name), name
        assert metric.kind not in ("histogram", "summary") or name.endswith("_seconds"), name


def test_the_answer_is_what_prometheus_reads(tmp_path: Path) -> None:
    with scraping(Settings(data_dir=tmp_path)) as scrape:
        plain = scrape()
        strict = scrape(accept="application/openmetrics-text; version=1.0.0")
    # This parser refuses whatever the format does not allow.
    strictly = parser.text_string_to_metric_families(strict.text)  # type: ignore[no-untyped-call]
    assert {family.name for family in strictly} >= {"nern_render_seconds", "nern_build"}
    assert "_created" not in plain.text
    if promtool := shutil.which("promtool"):
        ended = subprocess.run([promtool, "check", "metrics"], input=plain.text, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
