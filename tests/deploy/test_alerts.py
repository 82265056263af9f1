"""The alert rules and the dashboard: each alert fires on series that should fire it, and each expression is about real metrics.

The tests in alerts.yaml are in the form of promtool, which carries them out where it is on the machine. Everywhere,
`tests.support.promql` does.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.kubernetes import KUBERNETES
from tests.support.metrics import Described, exposed
from tests.support.promql import NAME, Alert, Labels, Samples, Storage, firing, labels_of, selectors, without
from tests.test_structure import ROOT

COMPONENT = KUBERNETES / "components" / "monitoring"
GROUPS = yaml.safe_load((COMPONENT / "alerts.yaml").read_text())["spec"]
RULES = [rule for group in GROUPS["groups"] for rule in group["rules"]]
PANELS = json.loads((COMPONENT / "dashboard.json").read_text())["panels"]
TESTS = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())

# Labels that Prometheus adds to the series of a target.
TARGET_LABELS = {"namespace", "pod", "instance", "job"}


Case = dict[str, Any]


def by_model(case: Case, folder: Path) -> None:
    """Fails unless `tests.support.promql` finds what a test expects."""
    storage = Storage(dict(series(each) for each in case["input_series"]))
    alerts = [
        Alert(rule["alert"], rule["expr"], seconds(rule["for"]) if "for" in rule else 0, rule["labels"]) for rule in RULES
    ]
    for test in case["promql_expr_test"]:
        at = seconds(test["eval_time"])
        expected = {labels_of(sample["labels"]): sample["value"] for sample in test["exp_samples"]}
        if test["expr"] == 'ALERTS{alertstate="firing"}':
            state = {(NAME, "ALERTS"), ("alertstate", "firing")}
            assert {labels | state for labels in firing(alerts, storage, at, seconds("1m"))} == expected.keys(), test
        else:
            found = {without(labels, NAME): value for labels, value in storage.vector(test["expr"], at).items()}
            assert found == {without(labels, NAME): pytest.approx(value) for labels, value in expected.items()}, test


def by_promtool(case: Case, folder: Path) -> None:
    """Fails unless promtool finds what a test expects. It gets the rules as Prometheus reads them without its operator."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(GROUPS))
    (folder / "test.yaml").write_text(yaml.safe_dump({**TESTS, "tests": [case]}))
    for arguments in (["check", "rules", "rules.yaml"], ["test", "rules", "test.yaml"]):
        ended = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


JUDGES = [by_model, *([by_promtool] if shutil.which("promtool") else [])]


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("case", TESTS["tests"], ids=[case["name"] for case in TESTS["tests"]])
def test_alerts_fire_when_they_should_and_only_then(case: Case, judge: Callable[[Case, Path], None], tmp_path: Path) -> None:
    judge(case, tmp_path)


def test_every_alert_is_tested() -> None:
    fired = {
        dict(labels_of(sample["labels"])).get("alertname")
        for case in TESTS["tests"]
        for test in case["promql_expr_test"]
        for sample in test["exp_samples"]
    }
    assert {rule["alert"] for rule in RULES} <= fired


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    documented = re.findall(r"^\| `(Nern\w+)` \| (\w+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert [(rule["alert"], rule["labels"]["severity"]) for rule in RULES] == documented
    for rule in RULES:
        assert rule["annotations"].keys() == {"summary", "description", "documentation"}, rule["alert"]
        assert rule["annotations"]["documentation"] == "docs/metrics.md#alerts"
        assert rule["labels"]["severity"] in ("critical", "warning")
        # A label in a text must be one that the expression keeps.
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= set(re.findall(r"\w+", "".join(re.findall(r"by \(([^)]*)\)", rule["expr"])))), rule["alert"]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Described]:
    return exposed(tmp_path_factory.mktemp("metrics"))


def test_every_expression_is_about_metrics_that_exist(metrics: dict[str, Described]) -> None:
    known = dict(series_of(metrics))
    for expression in [rule["expr"] for rule in RULES] + [
        target["expr"] for panel in PANELS for target in panel.get("targets", [])
    ]:
        parsed = promql_parser.parse(expression.replace("$__rate_interval", "5m"))
        found = list(selectors(parsed))
        assert found, expression
        for selector in found:
            assert selector.name in known, f"{selector.name} in {expression}"
            for matcher in selector.matchers.matchers:
                assert matcher.name in known[selector.name] | TARGET_LABELS, f"{matcher.name} in {expression}"
        labels = set().union(*(known[selector.name] for selector in found if selector.name))
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert set(re.findall(r"\w+", grouped)) <= labels | TARGET_LABELS, expression


def series_of(metrics: dict[str, Described]) -> Iterator[tuple[str, set[str]]]:
    """The names of the series of each metric, and their labels."""
    for name, metric in metrics.items():
        labels = set(metric.labels)
        if metric.kind in ("histogram", "summary"):
            yield from ((f"{name}{part}", labels) for part in ("_sum", "_count"))
        if metric.kind == "histogram":
            yield f"{name}_bucket", labels | {"le"}
        if metric.kind in ("counter", "gauge"):
            yield name, labels


def seconds(text: str) -> float:
    return promql_parser.parse_duration(text).total_seconds()


def series(written: dict[str, str]) -> tuple[Labels, Samples]:
    """A series as promtool reads it: `1x3` is 1 1 1 1, and `0+2x3` is 0 2 4 6; one sample in a minute."""
    values: list[float] = []
    for part in written["values"].split():
        matched = re.fullmatch(r"(\d+)(?:\+(\d+))?x(\d+)", part)
        assert matched, part
        first, step, times = float(matched[1]), float(matched[2] or 0), int(matched[3])
        values += [first + step * number for number in range(times + 1)]
    return labels_of(written["series"]), list(zip(count(0, 60.0), values, strict=False))
