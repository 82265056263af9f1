"""The Helm chart: it makes the objects of the kustomization, its values do what they say, and it refuses other values."""

import base64
import json
import re
import tomllib
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.deploy.test_manifests import COMPONENTS, OVERLAYS, VERSIONS, assert_valid
from tests.support.kubernetes import CHART, KUBERNETES, Object, combined, from_chart, helm, of, pods, rendered, selects

ROOT = CHART.parents[1]
DEFAULTS: Object = yaml.safe_load((CHART / "values.yaml").read_text())
CHART_FILE: Object = yaml.safe_load((CHART / "Chart.yaml").read_text())
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())

# Labels that Helm's conventions ask for. The label of the instance is also in selectors.
HELM_LABELS = {"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"}

# Settings that the chart makes itself, from its own manifests and from Secrets.
FIXED = {
    f"NERN_{name}" for name in ("HOST", "PORT", "DATA_DIR", "DATABASE_URL", "BROKER_URL", "API_KEYS", "THREADS", "METRICS_PORT")
}


def switched_on(*components: str) -> Object:
    return {name: {"enabled": True} for name in components}


@pytest.mark.parametrize("name", ["base", *(f"base+{component}" for component in COMPONENTS), *OVERLAYS])
def test_helm_and_kustomize_make_the_same_objects(name: str, tmp_path: Path) -> None:
    if name in OVERLAYS:
        kustomization = yaml.safe_load((KUBERNETES / "overlays" / name / "kustomization.yaml").read_text())
        components = [Path(path).name for path in kustomization["components"]]
        ours = rendered(KUBERNETES / "overlays" / name)
    else:
        components = name.split("+")[1:]
        ours = combined(tmp_path, components)
    expected, found = by_name(without_kustomize(ours)), by_name(without_helm(from_chart(switched_on(*components))))
    assert found.keys() == expected.keys()
    for one in expected:
        assert found[one] == expected[one], one


def by_name(objects: list[Object]) -> Object:
    named = {f"{found['kind']} {found['metadata']['name']}": found for found in objects}
    assert len(named) == len(objects)
    return named


def without_kustomize(objects: list[Object]) -> list[Object]:
    """The objects without what kustomize alone does. These are all differences on this side.

    The overlays make the namespace, and name it in each object. The name of the ConfigMap ends with a hash of its data.
    """
    text = re.sub(r"\bnern-settings-[a-z0-9]{10}\b", "nern-settings", json.dumps(objects))
    found = [one for one in json.loads(text) if one["kind"] != "Namespace"]
    for one in found:
        one["metadata"].pop("namespace", None)
    return [decoded(one) for one in found]


def without_helm(objects: list[Object]) -> list[Object]:
    """The objects without what Helm alone does. These are all differences on this side.

    There are labels for Helm. A change of the settings changes an annotation of the pods. The Job has the revision in its name.
    """
    found = without_keys(objects, HELM_LABELS)
    for _, template in pods([one for one in found if one["kind"] == "Deployment"]):
        annotations = template["metadata"].get("annotations", {})
        annotations.pop("checksum/settings", None)
        if not annotations:
            template["metadata"].pop("annotations", None)
    of(found, "Job", "nern-migrate-1")["metadata"]["name"] = "nern-migrate"
    return [decoded(one) for one in found]


def without_keys(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: without_keys(part, names) for key, part in value.items() if key not in names}
    return [without_keys(part, names) for part in value] if isinstance(value, list) else value


def decoded(found: Object) -> Object:
    """A Secret with its data in plain text: kustomize breaks long lines of base64."""
    if found["kind"] != "Secret":
        return found
    return {**found, "data": {name: base64.b64decode(value).decode() for name, value in found["data"].items()}}


# Every value of the chart, other than its default.
EVERY_VALUE: Object = {
    "image": {"repository": "registry.test/nern", "tag": "2.0", "digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "fullnameOverride": "renamed",
    "existingSecret": "123",
    "settings": {"NERN_BLOB_URL": "s3://other/blobs", "NERN_MAX_UPLOAD_BYTES": 8589934592, "NERN_LOG_FORMAT": "text"},
    **{
        process: {
            **({"replicas": 7} if process != "migrate" else {}),
            "resources": {
                "requests": {"cpu": "3", "memory": "3Gi", "ephemeral-storage": "3Gi"},
                "limits": {"cpu": "3", "memory": "3Gi", "ephemeral-storage": "3Gi"},
            },
            "podAnnotations": {"test/annotation": process},
            "podLabels": {"test/label": process},
            "nodeSelector": {"test/node": process},
            "tolerations": [{"key": process, "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "serviceAccountAnnotations": {"test/role": process},
        }
        for process in ("api", "worker", "migrate")
    },
    "network": {
        "names": {"to": [{"ipBlock": {"cidr": "10.0.0.53/32"}}]},
        "database": {"ports": [15432], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]},
        "broker": {"ports": [6380, 6381], "to": [{"ipBlock": {"cidr": "10.0.0.2/32"}}]},
        "https": {"ports": [9000], "to": [{"ipBlock": {"cidr": "10.0.0.3/32"}}]},
    },
    "s3": {"enabled": True, "existingSecret": "s3-secret"},
    "gpu": {"enabled": False},
    "dra": {"enabled": True, "deviceClassName": "mig.test"},
    "keda": {"enabled": True, "minReplicas": 2, "maxReplicas": 20},
    "gateway": {"enabled": True, "parentRefs": [{"name": "outer", "namespace": "gateways"}], "hostnames": ["nern.test"]},
    "monitoring": {
        "enabled": True,
        "labels": {"test/release": "prometheus"},
        "from": [{"namespaceSelector": {"matchLabels": {"test/space": "watchers"}}}],
    },
    "dev": {"enabled": False},
}
EVERY_VALUE["worker"]["runtimeClassName"] = "nvidia"
EVERY_VALUE["worker"]["image"] = {"repository": "registry.test/cuda", "tag": "3.0", "digest": f"sha256:{'1' * 64}"}
EVERY_VALUE["migrate"]["annotations"] = {"test/hook": "Sync"}


@pytest.fixture(scope="module")
def configured() -> list[Object]:
    """What the chart makes of every value."""
    return from_chart(EVERY_VALUE)


def described(schema: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each value that the schema of the values describes."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema or path == ("settings",):
        yield path
    else:
        for name, part in schema["properties"].items():
            yield from described(part, (*path, name))


def test_values_yaml_shows_every_value_and_these_tests_set_it() -> None:
    paths = set(described(SCHEMA)) - {("global",)}
    assert len(paths) > 40
    for path in paths:
        default = reduce(getitem, path, DEFAULTS)
        assert reduce(getitem, path, EVERY_VALUE) != default or path in {("gpu", "enabled"), ("dev", "enabled")}, path


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_of_the_chart_are_valid(configured: list[Object], version: str) -> None:
    assert_valid(configured, version)
    assert_valid(from_chart(switched_on("dev", "s3", "gpu")), version)


IMAGES = {
    "api": f"registry.test/nern@sha256:{'0' * 64}",
    "worker": f"registry.test/cuda@sha256:{'1' * 64}",
    "migrate": f"registry.test/nern@sha256:{'0' * 64}",
}


def test_values_reach_the_pods(configured: list[Object]) -> None:
    for name, template in pods(configured):
        process = name.removeprefix("renamed-").removesuffix("-1")
        values, spec = EVERY_VALUE[process], template["spec"]
        [container] = spec["containers"]
        assert container["image"] == IMAGES[process]
        assert container["imagePullPolicy"] == "Always"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert container["resources"].items() >= values["resources"].items()
        assert template["metadata"]["annotations"]["test/annotation"] == process
        assert template["metadata"]["labels"]["test/label"] == process
        assert spec["nodeSelector"] == {"test/node": process}
        assert values["tolerations"][0] in spec["tolerations"]
        assert spec["affinity"] == values["affinity"]
        account = of(configured, "ServiceAccount", f"renamed-{process}")
        assert spec["serviceAccountName"] == account["metadata"]["name"]
        assert account["metadata"]["annotations"] == {"test/role": process}
        assert variable(container, "NERN_DATABASE_URL")["secretKeyRef"]["name"] == "123"
        if process != "migrate":
            assert variable(container, "AWS_ACCESS_KEY_ID")["secretKeyRef"]["name"] == "s3-secret"
            assert container["envFrom"] == [{"configMapRef": {"name": "renamed-settings"}}]
    assert of(configured, "Deployment", "renamed-api")["spec"]["replicas"] == 7
    worker = of(configured, "Deployment", "renamed-worker")["spec"]
    assert "replicas" not in worker
    assert worker["template"]["spec"]["runtimeClassName"] == "nvidia"
    assert of(configured, "Job", "renamed-migrate-1")["metadata"]["annotations"] == {"test/hook": "Sync"}


def variable(container: Object, name: str) -> Any:
    [found] = [one for one in container["env"] if one["name"] == name]
    return found["valueFrom"]


def test_values_reach_the_other_objects(configured: list[Object]) -> None:
    settings = of(configured, "ConfigMap", "renamed-settings")["data"]
    assert settings["NERN_BLOB_URL"] == "s3://other/blobs"
    assert settings["NERN_MAX_UPLOAD_BYTES"] == "8589934592"  # and no 8.589934592e+09
    assert settings["NERN_LOG_FORMAT"] == "text"
    rules = {name: of(configured, "NetworkPolicy", f"renamed-{name}")["spec"]["egress"] for name in EVERY_VALUE["network"]}
    for name, where in EVERY_VALUE["network"].items():
        [rule] = rules[name]
        assert rule["to"] == where["to"]
        assert [port["port"] for port in rule["ports"]] == where.get("ports", [53, 53])
    [request] = of(configured, "ResourceClaimTemplate", "renamed-gpu")["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["deviceClassName"] == "mig.test"
    scaled = of(configured, "ScaledObject", "renamed-worker")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (2, 20)
    assert scaled["triggers"][0]["metadata"]["url"] == "http://renamed-api.nern.svc:8000/v1/queue"
    [key] = of(configured, "TriggerAuthentication", "renamed-queue")["spec"]["secretTargetRef"]
    assert key["name"] == "123"
    for kind in ("PodMonitor", "PrometheusRule"):
        assert of(configured, kind, "renamed")["metadata"]["labels"]["test/release"] == "prometheus"
    [rule] = of(configured, "NetworkPolicy", "renamed-metrics")["spec"]["ingress"]
    assert rule["from"] == EVERY_VALUE["monitoring"]["from"]
    route = of(configured, "HTTPRoute", "renamed")["spec"]
    assert (route["parentRefs"], route["hostnames"]) == ([{"name": "outer", "namespace": "gateways"}], ["nern.test"])


def test_a_tag_names_the_image_where_there_is_no_digest() -> None:
    found = from_chart({"image": {"tag": "2.0"}, "worker": {"image": {"repository": "registry.test/cuda"}}})
    images = {name: template["spec"]["containers"][0]["image"] for name, template in pods(found)}
    assert images["nern-api"] == images["nern-migrate-1"] == f"{DEFAULTS['image']['repository']}:2.0"
    assert images["nern-worker"] == f"registry.test/cuda:{CHART_FILE['appVersion']}"


def test_an_autoscaler_may_set_the_number_of_replicas() -> None:
    found = from_chart({"api": {"replicas": None}, "worker": {"replicas": 0}})
    assert "replicas" not in of(found, "Deployment", "nern-api")["spec"]
    assert of(found, "Deployment", "nern-worker")["spec"]["replicas"] == 0


def test_two_releases_in_a_namespace_share_nothing() -> None:
    components = {*COMPONENTS} - {"gpu"}
    ours, others = (from_chart(switched_on(*components), release=name) for name in ("one", "other"))
    assert not by_name(ours).keys() & by_name(others).keys()
    # No object refers to one of a release with another name.
    assert "nern-" not in json.dumps([decoded(one) for one in without_keys(ours, {*HELM_LABELS, "app.kubernetes.io/name"})])
    own, foreign = ([template["metadata"]["labels"] for _, template in pods(objects)] for objects in (ours, others))
    selectors = list(selectors_in(ours))
    assert len(selectors) > 20
    for selector in selectors:
        assert any(selects(selector, labels) for labels in own), selector
        assert not any(selects(selector, labels) for labels in foreign), selector


def selectors_in(value: Any) -> Iterator[Object]:
    """The selectors of pods of this namespace that are anywhere in objects."""
    if isinstance(value, list):
        for part in value:
            yield from selectors_in(part)
    elif isinstance(value, dict):
        if value.get("kind") == "Service":
            yield {"matchLabels": value["spec"]["selector"]}
        elif "matchLabels" in value:
            yield value
        elif "namespaceSelector" not in value:
            for part in value.values():
                yield from selectors_in(part)


def test_pods_are_replaced_when_a_setting_changes_and_only_then() -> None:
    def templates(values: Object) -> list[Object]:
        found = from_chart(values)
        return [of(found, "Deployment", f"nern-{name}")["spec"]["template"] for name in ("api", "worker")]

    before = templates({})
    after = templates({"settings": {"NERN_POLL_SECONDS": 0.25}})
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert templates({"api": {"replicas": 5}, "migrate": {"annotations": {"test/hook": "Sync"}}}) == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gatway": {"enabled": True}}, "additional properties 'gatway' not allowed"),
        ({"worker": {"replica": 3}}, "at '/worker': additional properties 'replica' not allowed"),
        ({"worker": {"replicas": "three"}}, "at '/worker/replicas': got string, want null or integer"),
        ({"worker": {"resources": {"limit": {}}}}, "at '/worker/resources': additional properties 'limit' not allowed"),
        ({"settings": {"NERN_POLL_SECOND": 1}}, "at '/settings': additional properties 'NERN_POLL_SECOND' not allowed"),
        ({"settings": {"NERN_DATABASE_URL": "x"}}, "at '/settings': additional properties 'NERN_DATABASE_URL' not allowed"),
        ({"network": {"database": {"ports": []}}}, "at '/network/database/ports': minItems: got 0, want 1"),
        ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
        (switched_on("gpu", "dra"), "gpu.enabled and dra.enabled give a worker its GPU in two ways. Set one of them"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(values: Object, message: str) -> None:
    ended = helm("template", "nern", values=values)
    assert ended.returncode == 1
    assert message in ended.stderr


def test_the_chart_may_be_part_of_another_chart() -> None:
    assert from_chart({"global": {"storageClass": "fast"}}) == from_chart()


def test_the_values_in_the_documents_are_accepted() -> None:
    [section] = re.findall(r"^## By Helm\n(.*?)^## ", (ROOT / "docs/kubernetes.md").read_text(), re.MULTILINE | re.DOTALL)
    examples = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        assert from_chart(yaml.safe_load(example)) != from_chart()


def test_every_setting_can_be_set() -> None:
    """A setting that the schema of the chart does not know is refused."""
    assert SCHEMA["properties"]["settings"]["properties"].keys() | FIXED == {
        f"NERN_{name.upper()}" for name in Settings.model_fields
    }


def test_the_chart_is_that_of_the_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    assert CHART_FILE["version"] == CHART_FILE["appVersion"] == base["images"][0]["newTag"] == project["version"]


def test_helm_finds_nothing_to_mend() -> None:
    ended = helm("lint", "--strict", values=EVERY_VALUE)
    assert ended.returncode == 0, ended.stdout
    assert "[WARNING]" not in ended.stdout


def test_the_notes_name_what_a_release_needs_and_where_it_answers() -> None:
    def notes(values: Object) -> str:
        ended = helm("install", "nern", "--dry-run=client", "--namespace", "test", values=values)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.partition("\nNOTES:\n")[2]

    plain = notes({})
    assert "kubectl --namespace test port-forward service/nern-api 8000" in plain
    assert "the Secret nern with database-url, broker-url and api-keys" in plain
    assert "nern-s3" not in plain
    full = notes(EVERY_VALUE)
    assert "nern.test" in full
    assert "the Secret 123 with database-url, broker-url and api-keys, and queue-key" in full
    assert "the Secret s3-secret with access-key-id and secret-access-key" in full
    assert "development-key-of-all" in notes(switched_on("dev", "s3"))
