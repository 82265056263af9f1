"""The cluster of the tests does what a manifest says about containers: the tests of the manifests rely on it."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.cluster import running
from tests.support.kubernetes import Object
from tests.support.waiting import until

CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

# The container writes who it is, what its init container has left, and what it can't do.
SCRIPT = """
id -u
cat /data/left
grep -q ' / / ro,' /proc/self/mountinfo && echo read-only
grep -E 'CapEff|NoNewPrivs' /proc/self/status
[ -e /home ] || echo apart
trap 'echo told; exit 0' TERM
while :; do sleep 0.1; done
"""


def container(name: str, script: str) -> Object:
    return {
        "name": name,
        # Any image that has a shell.
        "image": "docker.io/library/redis:8",
        "command": ["sh", "-c", script],
        "securityContext": CONFINED,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }


def deployment(replicas: int) -> Object:
    labels = {"app": "shell"}
    spec = {
        "securityContext": {"runAsUser": 4321, "fsGroup": 4321},
        "initContainers": [container("first", "echo left > /data/left")],
        "containers": [container("shell", SCRIPT)],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    return {
        "kind": "Deployment",
        "metadata": {"name": "shell"},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def test_a_container_has_its_user_and_its_files_and_nothing_else() -> None:
    with TemporaryDirectory(prefix="nern-") as folder, running(Path(folder), {}) as cluster:
        cluster.apply([deployment(1)])
        until(lambda: "apart" in cluster.log(), what="the container")
        cluster.apply([deployment(0)])
        until(lambda: not cluster.state().pods, what="the end of the pod")
        [_, *written] = cluster.log().rpartition("---")[2].split()
    assert written == ["4321", "left", "read-only", "CapEff:", "0" * 16, "NoNewPrivs:", "1", "apart", "told"]
