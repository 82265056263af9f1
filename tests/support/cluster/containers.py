"""Containers: their variables, their files, and the processes that `sandbox.py` runs."""

import asyncio
import base64
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import sandbox
from tests.support.cluster.images import Image
from tests.support.kubernetes import Object

# The fields of containers that are carried out here or in `pods`, and those that are not.
KNOWN = {
    "name", "image", "command", "args", "env", "envFrom", "ports", "volumeMounts", "securityContext", "lifecycle",
    "startupProbe", "livenessProbe", "readinessProbe",
    # Limits would need control groups, which only some machines let a test make. A limit of the address space would be another
    # limit than that of the memory. So `resources` only counts where a variable refers to it.
    "resources",
}  # fmt: skip

Objects = Mapping[tuple[str, str], Object]


class ConfigError(Exception):
    """The container can't be made, because something that it refers to is not there."""


@dataclass(frozen=True)
class Place:
    """Where the containers of a pod are. names: the addresses of Services by their names. folder: of this pod."""

    pod: str
    network: int
    folder: Path
    names: Mapping[str, str]
    mapped: bool


def variables(container: Object, objects: Objects) -> dict[str, str]:
    """The variables that a container has besides those of its image. Raises ConfigError."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        [(kind, reference)] = source.items()
        found |= _data(objects, {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"])
    for variable in container.get("env", []):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
            continue
        [(kind, reference)] = variable["valueFrom"].items()
        if kind == "resourceFieldRef":
            found[variable["name"]] = _resource(container, reference["resource"])
            continue
        try:
            data = _data(objects, {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}[kind], reference["name"])
            if reference["key"] not in data:
                raise ConfigError(f"couldn't find key {reference['key']} in {reference['name']}")
            found[variable["name"]] = data[reference["key"]]
        except ConfigError:
            if not reference.get("optional"):
                raise
    return found


def _data(objects: Objects, kind: str, name: str) -> dict[str, str]:
    if (kind, name) not in objects:
        raise ConfigError(f"{kind.lower()} {name!r} not found")
    data: dict[str, str] = objects[kind, name].get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in data.items()} if kind == "Secret" else data


def _resource(container: Object, name: str) -> str:
    """A number of processors, rounded up."""
    section, _, resource = name.partition(".")
    assert resource == "cpu", name
    amount = str(container["resources"][section][resource])
    return str(math.ceil(int(amount[:-1]) / 1000 if amount.endswith("m") else float(amount)))


async def start(container: Object, spec: Object, image: Image, place: Place, objects: Objects) -> asyncio.subprocess.Process:
    """Starts a container of a pod. Its output goes to a file in the folder of the pod. Raises ConfigError."""
    assert container.keys() <= KNOWN, container.keys() - KNOWN
    own = variables(container, objects)
    user = container["securityContext"].get("runAsUser", spec["securityContext"]["runAsUser"])
    root = place.folder / "root"
    root.mkdir(exist_ok=True)
    about: sandbox.Description = {
        "name": place.pod,
        "network": place.network,
        "root": str(root),
        "read_only": container["securityContext"]["readOnlyRootFilesystem"],
        "user": user,
        "mapped": place.mapped,
        "files": {
            "/etc/passwd": f"root:x:0:0::/:/bin/sh\nuser:x:{user}:{user}::/tmp:/bin/sh\n",
            "/etc/group": f"root:x:0:\nuser:x:{user}:\n",
            "/etc/hosts": "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **place.names}.items()),
        },
        "folders": dict(image.folders),
        "volumes": {mount["mountPath"]: _volume(mount["name"], spec, place, objects) for mount in container["volumeMounts"]},
        "environment": {**image.environment, **own},
        "folder": image.folder,
        "command": [*container.get("command", image.command), *container.get("args", [])],
    }
    with (place.folder / f"{container['name']}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", sandbox.__file__, json.dumps(about),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(place.network,),
        )  # fmt: skip


def _volume(name: str, spec: Object, place: Place, objects: Objects) -> str:
    """The folder of a volume, which lasts as long as the pod. Raises ConfigError."""
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == name]
    folder = place.folder / "volumes" / name
    if not folder.exists():
        folder.mkdir(parents=True)
        if "secret" in volume:
            data = _data(objects, "Secret", volume["secret"]["secretName"])
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_text(data[item["key"]])
        else:
            assert "emptyDir" in volume, volume
            # As kubelet makes it: for the group of the pod.
            folder.chmod(0o2777)
            if not place.mapped and "fsGroup" in spec["securityContext"]:
                os.chown(folder, 0, spec["securityContext"]["fsGroup"])
    return str(folder)
