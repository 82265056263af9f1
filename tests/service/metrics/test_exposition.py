"""The port for Prometheus."""

import socket
from importlib.metadata import version
from pathlib import Path
from threading import enumerate as threads

import pytest

from service.metrics.exposition import metrics_served
from service.settings import Settings
from tests.support.metrics import Scrape, scraping
from tests.support.servers import free_port


def test_no_port_is_opened_unless_one_is_set() -> None:
    before = threads()
    with metrics_served(Settings()):
        assert threads() == before


def test_the_port_is_on_the_address_of_the_service_and_free_afterwards() -> None:
    settings = Settings(host="127.0.0.2", metrics_port=free_port())
    for _ in range(2):
        with metrics_served(settings):
            socket.create_connection(("127.0.0.2", settings.metrics_port)).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", settings.metrics_port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", settings.metrics_port))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(metrics_port=taken.getsockname()[1])
        message = f"NERN_METRICS_PORT: 127.0.0.1:{settings.metrics_port}: Address already in use"
        with pytest.raises(OSError, match=message), metrics_served(settings):
            raise AssertionError("unreachable")


def test_a_process_tells_its_release_and_the_room_on_its_disks(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with scraping(Settings(data_dir=folder)) as scrape:
        read: Scrape = scrape()
        [build] = [dict(labels) for name, labels in read.series if name == "nern_build_info"]
        assert (build["version"], build["torch"]) == (version("nern"), version("torch"))
        assert read.value("nern_disk_free_bytes", folder="data") > 2**20
        assert read.value("process_resident_memory_bytes") > 2**20
        # A folder that is gone does not make the scrape fail.
        folder.rmdir()
        assert scrape().value("nern_disk_free_bytes", folder="tmp") > 2**20
