"""What Prometheus reads of a process."""

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.metrics.exposition import metrics_served
from service.settings import Settings
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_SECONDS

# A series: its name, and its labels.
Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The metrics of one scrape: `families` by name, and the value of each series."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_SECONDS) as answer:
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
def scraping(settings: Settings, *collectors: Collector) -> Iterator[Callable[[], Scrape]]:
    """A block in which the metrics of this process are served. Yields a function that scrapes them."""
    port = free_port()
    with metrics_served(settings.model_copy(update={"metrics_port": port}), *collectors):
        yield lambda: Scrape(port)
