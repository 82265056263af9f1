"""The manifests of Kubernetes: what kubectl renders is valid, and fits what the processes do."""

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.access.keys import Caller, parse_keys
from service.api.app import create_app
from service.api.workers import QueueOut
from service.inspection.pool import MAX_TASKS
from service.serving.predictors import MAX_LOADED_BYTES, MAX_RENDERED_BYTES
from service.settings import GIB, MIB, Settings, unknown
from service.supervisor import GRACE_SECONDS
from tests.support.kubernetes import KUBERNETES, Object, combined, of, pods, rendered, selects
from tests.support.policies import may, rules
from worker.celery import END_SECONDS

COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())

# The oldest and the newest version that the manifests are for. The oldest one has ResourceClaims and sleeping preStop hooks.
VERSIONS = ("1.34", "1.37")

# Fields of objects that are not Kubernetes' own, as far as the manifests use them.
CUSTOM: dict[str, Object] = {
    "ScaledObject": {
        "scaleTargetRef": {"name": str},
        "minReplicaCount": int,
        "maxReplicaCount": int,
        "pollingInterval": int,
        "cooldownPeriod": int,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": dict}},
        "triggers": [{"type": str, "metadata": dict, "authenticationRef": {"name": str}}],
    },
    "PodMonitor": {
        "selector": {"matchLabels": dict, "matchExpressions": [dict]},
        "podMetricsEndpoints": [{"port": str, "interval": str}],
    },
    "PrometheusRule": {
        "groups": [
            {
                "name": str,
                "rules": [
                    {
                        "alert": str,
                        "expr": str,
                        "for": str,
                        "labels": {"severity": str},
                        "annotations": {"summary": str, "description": str, "documentation": str},
                    }
                ],
            }
        ]
    },
    "TriggerAuthentication": {"secretTargetRef": [{"parameter": str, "name": str, "key": str}]},
    "HTTPRoute": {
        "parentRefs": [{"name": str, "namespace": str}],
        "hostnames": [str],
        "rules": [
            {
                "matches": [{"path": {"type": str, "value": str}}],
                "backendRefs": [{"name": str, "port": int}],
                "timeouts": {"request": str, "backendRequest": str},
            }
        ],
    },
}


@pytest.fixture(scope="module", params=[*OVERLAYS, *(f"base+{name}" for name in COMPONENTS)])
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What each overlay, and the base with each component, is rendered to."""
    if request.param.startswith("base+"):
        return combined(tmp_path_factory.mktemp("base"), [request.param.removeprefix("base+")])
    return rendered(KUBERNETES / "overlays" / request.param)


@pytest.fixture(scope="module")
def dev() -> list[Object]:
    return rendered(KUBERNETES / "overlays" / "dev")


@pytest.fixture(scope="module")
def production() -> list[Object]:
    return rendered(KUBERNETES / "overlays" / "production")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects: list[Object], version: str) -> None:
    assert_valid(objects, version)


def assert_valid(objects: list[Object], version: str) -> None:
    """Asserts that objects have the schemas of a version of Kubernetes."""
    assert objects
    for found in objects:
        if found["kind"] in CUSTOM:
            assert_only(found["spec"], CUSTOM[found["kind"]], found["kind"])
        else:
            kubernetes_validate.validate(found, version, strict=True)


def assert_only(value: Any, model: Any, where: str) -> None:
    """Asserts that a value has the types of a model, and no fields but those of the model."""
    if isinstance(model, dict):
        assert value.keys() <= model.keys(), where
        for name, part in value.items():
            assert_only(part, model[name], f"{where}.{name}")
    elif isinstance(model, list):
        for part in value:
            assert_only(part, model[0], where)
    else:
        assert isinstance(value, model), where


def test_objects_of_keda_and_prometheus_have_the_schemas_of_their_releases(production: list[Object]) -> None:
    folder = os.environ.get("NERN_TEST_K8S")
    checked = 0
    for path in Path(folder).glob("*.yaml") if folder else ():
        # In Python, unlike in Go, flags stand at the start of a pattern.
        crd = yaml.safe_load(path.read_text().replace("^(?i)", "(?i)^"))
        for found in production:
            if found["kind"] == crd["spec"]["names"]["kind"]:
                [version] = [v for v in crd["spec"]["versions"] if f"{crd['spec']['group']}/{v['name']}" == found["apiVersion"]]
                jsonschema.validate(found, version["schema"]["openAPIV3Schema"])
                checked += 1
    assert checked == 4 or not folder


def test_every_variable_is_a_setting(objects: list[Object]) -> None:
    names: set[str] = set()
    for found in objects:
        if found["kind"] == "ConfigMap":
            names |= found["data"].keys()
    for _, template in pods(objects):
        for container in template["spec"]["containers"]:
            names |= {variable["name"] for variable in container.get("env", [])}
    assert {"NERN_DATABASE_URL", "NERN_BROKER_URL", "NERN_HOST", "NERN_BLOB_URL"} <= names
    assert unknown(names) == []


def test_pods_are_restricted(objects: list[Object]) -> None:
    """The level `restricted` of the Pod Security Standards, and more."""
    for name, template in pods(objects):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }, name  # fmt: skip
            assert {"requests", "limits"} <= container["resources"].keys(), name
            assert "memory" in container["resources"]["limits"], name
        assert all({"emptyDir", "secret"} & volume.keys() for volume in spec.get("volumes", [])), name
    for account in [found for found in objects if found["kind"] == "ServiceAccount"]:
        assert account["automountServiceAccountToken"] is False
    for namespace in [found for found in objects if found["kind"] == "Namespace"]:
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_selectors_select_pods(objects: list[Object]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods(objects)}
    for found in objects:
        if found["kind"] == "Service":
            [chosen] = [name for name, of_pod in labels.items() if selects({"matchLabels": found["spec"]["selector"]}, of_pod)]
            assert chosen == found["metadata"]["name"]
        if found["kind"] in ("Deployment", "PodDisruptionBudget"):
            [chosen] = [name for name, of_pod in labels.items() if selects(found["spec"]["selector"], of_pod)]
            assert chosen == found["metadata"]["name"]


def test_probes_ask_open_routes_of_the_api(production: list[Object], tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data", inspectors=0))
    [container] = of(production, "Deployment", "nern-api")["spec"]["template"]["spec"]["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    # Readiness depends on the stores. A pod that is not ready must not be killed.
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert set(paths.values()) <= app.openapi()["paths"].keys()
    assert {"name": "http", "containerPort": Settings.model_fields["port"].default} in container["ports"]


def test_the_probes_wait_for_as_long_as_the_answers_may_take(production: list[Object]) -> None:
    from service.readiness import PROBE_SECONDS

    [container] = of(production, "Deployment", "nern-api")["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["timeoutSeconds"] > PROBE_SECONDS
    # A fresh process imports torch, which takes seconds.
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 60


def test_there_is_time_to_stop(production: list[Object]) -> None:
    from service import server

    api, worker = (of(production, "Deployment", f"nern-{name}")["spec"]["template"]["spec"] for name in ("api", "worker"))
    pause = api["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause + server.GRACE_SECONDS + 5 <= api["terminationGracePeriodSeconds"]
    assert worker["terminationGracePeriodSeconds"] >= GRACE_SECONDS + END_SECONDS + 5
    # A worker that is killed all the same is noticed, and its job goes on elsewhere, before the worker could come back.
    assert Settings.model_fields["lease_seconds"].default <= worker["terminationGracePeriodSeconds"]


def test_the_memory_of_an_api_pod_suffices_for_its_caches_and_the_largest_uploads(production: list[Object]) -> None:
    """Where a process is beyond the limit of its pod, Kubernetes kills all processes of the pod, with their requests."""
    [container] = of(production, "Deployment", "nern-api")["spec"]["template"]["spec"]["containers"]
    [settings] = [found["data"] for found in production if "NERN_MAX_UPLOAD_BYTES" in found.get("data", {})]
    # docs/deployment.md: what the API and each process that waits take, and how often a file is in memory while it is read.
    idle = 300 * MIB * (1 + Settings.model_fields["inspectors"].default)
    needed = idle + MAX_LOADED_BYTES + MAX_RENDERED_BYTES + MAX_TASKS * 3 * int(settings["NERN_MAX_UPLOAD_BYTES"])
    assert needed <= int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * GIB


def test_the_keys_of_dev_are_keys(dev: list[Object]) -> None:
    secret = {name: base64.b64decode(value).decode() for name, value in of(dev, "Secret", "nern")["data"].items()}
    assert parse_keys(secret["api-keys"]) == {secret["queue-key"]: Caller("", "admin")}


def test_replicas_are_spread_over_zones_and_nodes(production: list[Object]) -> None:
    deployment = of(production, "Deployment", "nern-api")["spec"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for constraint in spread:
        assert constraint["labelSelector"] == deployment["selector"]
        # In a rollout, the replicas of the old release would count too.
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]


def test_the_log_of_a_migration_that_failed_stays(production: list[Object]) -> None:
    """Kubernetes removes the only pod of a Job that restarts it, when the Job has failed."""
    assert of(production, "Job", "nern-migrate")["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_no_request_fails_in_a_rollout(production: list[Object]) -> None:
    api = of(production, "Deployment", "nern-api")["spec"]
    assert api["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert api["replicas"] >= 2
    assert of(production, "PodDisruptionBudget", "nern-api")["spec"]["maxUnavailable"] < api["replicas"]


def test_secrets_are_references(production: list[Object]) -> None:
    assert not [found for found in production if found["kind"] == "Secret"]
    text = json.dumps(production)
    assert not re.search(r"password|postgresql://", text, re.IGNORECASE)
    [container] = of(production, "Deployment", "nern-api")["spec"]["template"]["spec"]["containers"]
    referred = {v["name"] for v in container["env"] if "secretKeyRef" in v.get("valueFrom", {})}
    assert {"NERN_DATABASE_URL", "NERN_BROKER_URL", "NERN_API_KEYS", "AWS_SECRET_ACCESS_KEY"} <= referred


def test_keda_asks_the_service_how_many_workers_have_something_to_do(production: list[Object], tmp_path: Path) -> None:
    scaled = of(production, "ScaledObject", "nern-worker")["spec"]
    [trigger] = scaled["triggers"]
    service = of(production, "Service", "nern-api")
    # KEDA looks the name up from its own namespace.
    host = "{name}.{namespace}.svc".format(**service["metadata"])
    path = trigger["metadata"]["url"].removeprefix(f"http://{host}:{service['spec']['ports'][0]['port']}")
    assert path in create_app(Settings(data_dir=tmp_path / "data", inspectors=0)).openapi()["paths"]
    # Jobs that run count too. Otherwise the workers that train would be stopped when no job waits.
    assert trigger["metadata"]["valueLocation"] == "unfinished"
    assert "unfinished" in QueueOut.model_fields
    assert (trigger["metadata"]["targetValue"], scaled["minReplicaCount"]) == ("1", 0)
    worker = of(production, "Deployment", scaled["scaleTargetRef"]["name"])
    assert "replicas" not in worker["spec"]
    assert of(production, "TriggerAuthentication", trigger["authenticationRef"]["name"])


def test_a_gpu_worker_has_one_gpu_and_does_not_train_without_it(tmp_path: Path) -> None:
    for component in ("gpu", "dra"):
        folder = tmp_path / component
        folder.mkdir()
        worker = of(combined(folder, [component]), "Deployment", "nern-worker")["spec"]["template"]["spec"]
        [container] = worker["containers"]
        assert {"name": "NERN_DEVICE", "value": "cuda"} in container["env"]
        assert {"name": "NERN_THREADS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}} in container["env"]
        assert container["resources"]["limits"]["cpu"] == "4"
        assert worker["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        if component == "gpu":
            assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        else:
            [claim] = worker["resourceClaims"]
            assert container["resources"]["claims"] == [{"name": claim["name"]}]


# Who connects to whom, as docs/architecture.md says, with the ports.
ARROWS = {
    ("clients", "nern-api", 8000),
    ("nern-api", "nern-postgres", 5432),
    ("nern-api", "nern-redis", 6379),
    ("nern-api", "nern-s3", 8333),
    ("nern-worker", "nern-postgres", 5432),
    ("nern-worker", "nern-redis", 6379),
    ("nern-worker", "nern-s3", 8333),
    ("nern-migrate", "nern-postgres", 5432),
}
PORT_NAMES = {"http": 8000}


def test_policies_allow_the_arrows_of_the_design_and_nothing_else(dev: list[Object]) -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods(dev)}
    policies = [found["spec"] for found in dev if found["kind"] == "NetworkPolicy"]
    ports = {port for _, _, port in ARROWS} | {443, 22}
    allowed = {
        (source, target, port)
        for source in [*labels, "clients"]
        for target in [*labels, "elsewhere"]
        for port in ports
        if source != target
        and may(policies, "egress", labels.get(source), labels.get(target), port, PORT_NAMES)
        and may(policies, "ingress", labels.get(target), labels.get(source), port, PORT_NAMES)
    }
    assert {arrow for arrow in allowed if arrow[:2] != ("clients", "elsewhere")} == ARROWS


# The ports that each policy opens, in its rules for both directions.
OPENED: dict[str, set[int | str]] = {
    "nern-nothing": set(),
    "nern-names": {53},
    "nern-clients": {"http"},
    "nern-database": {5432},
    "nern-broker": {6379},
    "nern-https": {443},
}
OPENED_IN_PRODUCTION = {**OPENED, "nern-metrics": {"metrics"}}
OPENED_IN_DEV = {**OPENED, "nern-https": {8333}, "nern-postgres": {5432}, "nern-redis": {6379}, "nern-s3": {8333}}


def test_each_policy_opens_its_ports_alone(dev: list[Object], production: list[Object]) -> None:
    """A rule without ports opens all. The other end of a connection may be no pod of ours, so each end counts by itself."""
    for objects, expected in ((production, OPENED_IN_PRODUCTION), (dev, OPENED_IN_DEV)):
        found: dict[str, set[int | str]] = {}
        for policy in [one for one in objects if one["kind"] == "NetworkPolicy"]:
            both = [*rules([policy["spec"]], "egress"), *rules([policy["spec"]], "ingress")]
            assert all(rule.get("ports") for rule in both), policy["metadata"]["name"]
            found[policy["metadata"]["name"]] = {port["port"] for rule in both for port in rule["ports"]}
        assert found == expected


def test_prometheus_and_nobody_else_reads_the_metrics(tmp_path: Path) -> None:
    objects = combined(tmp_path, ["monitoring"])
    monitor = of(objects, "PodMonitor", "nern")["spec"]
    settings = next(found for found in objects if found["kind"] == "ConfigMap" and "NERN_METRICS_PORT" in found["data"])
    for name, template in pods(objects):
        [container] = template["spec"]["containers"]
        watched = selects(monitor["selector"], template["metadata"]["labels"])
        assert watched == (name in ("nern-api", "nern-worker")), name
        if watched:
            [endpoint] = monitor["podMetricsEndpoints"]
            [port] = [port["containerPort"] for port in container["ports"] if port["name"] == endpoint["port"]]
            assert str(port) == settings["data"]["NERN_METRICS_PORT"]
            assert {"configMapRef": {"name": settings["metadata"]["name"]}} in container["envFrom"]
    # No other policy opens the port, and this one lets Prometheus in alone.
    opening = [found for found in objects if found["kind"] == "NetworkPolicy" and "metrics" in json.dumps(found["spec"])]
    assert [found["metadata"]["name"] for found in opening] == ["nern-metrics"]
    assert opening[0]["spec"]["podSelector"] == monitor["selector"]
    assert opening[0]["spec"]["ingress"] == [
        {
            "from": [
                {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
                }
            ],
            "ports": [{"port": "metrics"}],
        }
    ]
    dashboard = of(objects, "ConfigMap", "nern-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["dashboard.json"])["title"] == "NeRN"
