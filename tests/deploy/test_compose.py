"""The file for Docker Compose: it is valid, and its containers are those of the manifests."""

import subprocess
import sys
from typing import Any

import pytest
import yaml

from service import server
from service.settings import Settings, unknown
from service.supervisor import GRACE_SECONDS
from tests.support.kubernetes import KUBERNETES, pods, rendered
from tests.test_structure import ROOT
from worker.celery import END_SECONDS

FILE = ROOT / "deploy/compose.yaml"
OURS = ("migrate", "api", "worker")


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def test_the_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_variable_is_a_setting(services: dict[str, Any]) -> None:
    for name in OURS:
        assert "NERN_DATABASE_URL" in services[name]["environment"]
        assert unknown(services[name]["environment"]) == []


def test_containers_are_those_of_the_manifests(services: dict[str, Any]) -> None:
    specs = {name: template["spec"] for name, template in pods(rendered(KUBERNETES / "base"))}
    for name in OURS:
        service, spec = services[name], specs[f"nern-{name}"]
        [container] = spec["containers"]
        assert service["command"] == container["args"]
        assert "entrypoint" not in service
        assert service["user"] == f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
        assert {mount["mountPath"] for mount in container["volumeMounts"]} <= targets(service)


def targets(service: dict[str, Any]) -> set[str]:
    """The folders of a container that can be written to."""
    return {volume.rpartition(":")[2] for volume in service["volumes"]} | set(service.get("tmpfs", []))


def test_containers_are_confined(services: dict[str, Any]) -> None:
    for name in OURS:
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert targets(service) == {"/data", "/tmp"}  # noqa: S108
        assert not {"privileged", "cap_add", "pid", "ipc", "network_mode"} & service.keys()


def test_the_api_is_reached_from_this_machine_alone(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    port = Settings.model_fields["port"].default
    assert ports == {"api": [f"127.0.0.1:{port}:{port}"]}
    assert f"http://127.0.0.1:{port}/readyz" in services["api"]["healthcheck"]["test"][-1]


def test_there_is_time_to_stop(services: dict[str, Any]) -> None:
    assert seconds(services["api"]["stop_grace_period"]) >= server.GRACE_SECONDS + 5
    assert seconds(services["worker"]["stop_grace_period"]) >= GRACE_SECONDS + END_SECONDS + 5


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))
