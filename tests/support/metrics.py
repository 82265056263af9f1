"""What Prometheus reads of a process."""

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.metrics import counted
from service.metrics.exposition import metrics_served
from service.metrics.stored import DatabaseMetrics
from service.settings import Settings
from tests.support import migrated, rows
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_SECONDS

# A series: its name, and its labels.
Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The metrics of one scrape: `families` by name, and the value of each series."""

    def __init__(self, port: int, *, accept: str = "text/plain") -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:
            self.text = answer.read().decode()
        self.families: dict[str, Metric] = {family.name: family for family in text_string_to_metric_families(self.text)}
        self.series: dict[Series, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The value of the series of this name and these labels. 0 if there is none."""
        return self.series.get((name, frozenset(labels.items())), 0.0)

    def grown(self, before: "Scrape", name: str, **labels: str) -> float:
        """By how much a series has grown since an earlier scrape."""
        return self.value(name, **labels) - before.value(name, **labels)


@contextmanager
def scraping(settings: Settings, *collectors: Collector) -> Iterator[Callable[..., Scrape]]:
    """A block in which the metrics of this process are served. Yields a function that scrapes them."""
    port = free_port()
    with metrics_served(settings.model_copy(update={"metrics_port": port}), *collectors):
        yield partial(Scrape, port)


@dataclass(frozen=True)
class Described:
    """A metric that the processes of the service expose: its kind and its labels."""

    kind: str
    labels: frozenset[str]


def exposed(folder: Path) -> dict[str, Described]:
    """All metrics that an API process exposes, by name, while a job runs. A database is made in the folder."""
    database = migrated.sqlite(f"sqlite:///{folder / 'metrics.sqlite3'}")
    checkpoint = rows.checkpoint()
    shown = {"progress": {"fraction": 0.5, "steps_per_second": 7.0}, "metrics": {"distillation": 0.25}}
    job = rows.job(checkpoint.id, state="running", worker={"device": "cpu"}, claimed_at=rows.NOW, attempt=1, **shown)
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        session.add(job)
    with scraping(Settings(data_dir=folder), DatabaseMetrics(database)) as scrape:
        families = scrape().families.values()
    database.close()
    # Series of a request, for example, are there only after a request.
    declared = {
        metric._name: set(metric._labelnames) for metric in vars(counted).values() if isinstance(metric, MetricWrapperBase)
    }
    found = {}
    for family in families:
        seen = {label for sample in family.samples for label in sample.labels}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = Described(family.type, frozenset((seen | declared.get(family.name, set())) - {"le"}))
    return found
