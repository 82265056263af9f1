"""The port that Prometheus asks for the metrics of a process. It is not a port of the API, and needs no key."""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from math import nan
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.registry import Collector

from service.metrics.counted import REGISTRY
from service.settings import Settings


@contextmanager
def metrics_served(settings: Settings, *collectors: Collector) -> Iterator[None]:
    """A block in which a thread answers Prometheus at NERN_METRICS_PORT, if that is set.

    The answer has what this process counts, and what the collectors tell. Raises OSError if the port can't be listened on.
    """
    if not settings.metrics_port:
        yield
        return
    # Series that tell when a counter was made would double the number of series.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    for collector in (REGISTRY, *collectors):
        registry.register(collector)
    _describe(registry, settings)
    try:
        server, thread = start_http_server(settings.metrics_port, settings.host, registry)
    except OSError as error:
        raise OSError(f"NERN_METRICS_PORT: {settings.host}:{settings.metrics_port}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _describe(registry: CollectorRegistry, settings: Settings) -> None:
    """Adds what is true of every process: its release, its memory and processor time, the room on its disks."""
    build = Info("nern_build", "Versions of the service and of what decides its results", registry=registry)
    build.info({"version": version("nern"), "torch": version("torch"), "python": platform.python_version()})
    ProcessCollector(registry=registry)
    free = Gauge("nern_disk_free_bytes", "Room where a folder of this process is", ["folder"], registry=registry)
    for name, folder in (("data", settings.data_dir), ("tmp", Path(tempfile.gettempdir()))):
        if folder.is_dir():
            free.labels(name).set_function(partial(_free, folder))


def _free(folder: Path) -> float:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return nan
