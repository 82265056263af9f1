"""Containers of the image, started as the manifests of Kubernetes say, with docker or podman."""

import base64
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster.containers import variables
from tests.support.kubernetes import KUBERNETES, Object, pods, rendered

DEADLINE_SECONDS = 300
POLL_SECONDS = 0.02

# The end of a log that a failure shows, in characters.
SHOWN_LOG = 2000


class Failure(Exception):
    """The image does not do what it should."""


@dataclass(frozen=True)
class Container:
    """A container that runs. `grace_seconds` is how long it may take to end after SIGTERM."""

    engine: str
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    grace_seconds: float

    def until(self, done: Callable[[], Any]) -> None:
        """Waits for `done`. Raises Failure if the container ends before, or after DEADLINE_SECONDS."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not done():
            if (status := self.process.poll()) is not None:
                raise self._failure(f"has ended with status {status}")
            if time.monotonic() > deadline:
                raise self._failure(f"has not done its work in {DEADLINE_SECONDS} seconds")
            time.sleep(POLL_SECONDS)

    def end(self) -> None:
        """Waits until the container has ended by itself. Raises Failure if its status is not 0."""
        self._end(DEADLINE_SECONDS)

    def stop(self) -> None:
        """Sends SIGTERM, and waits for the end. Raises Failure if it takes too long, or if the status is not 0."""
        subprocess.run([self.engine, "kill", "--signal", "TERM", self.name], check=True, stdout=subprocess.DEVNULL)
        self._end(self.grace_seconds)

    def _end(self, seconds: float) -> None:
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._failure(f"still runs after {seconds} seconds") from None
        if status:
            raise self._failure(f"has ended with status {status}")

    def _failure(self, what: str) -> Failure:
        return Failure(f"the container {self.name} {what}:\n{self.log.read_text(errors='replace')[-SHOWN_LOG:]}")


@dataclass(frozen=True)
class Containers:
    """Starts the containers of one run, by role: migrate, api or worker.

    `folder` gets their logs, and its name is the first part of their names. `secrets` has the values of the Secret `nern`.
    `settings` are NERN_* variables in place of those of the manifests, `mounts` more volumes. The network is the machine's.
    """

    engine: str
    image: str
    folder: Path
    secrets: dict[str, str]
    settings: dict[str, str]
    mounts: Sequence[str]
    objects: list[Object] = field(default_factory=lambda: rendered(KUBERNETES / "base"))

    @contextmanager
    def volume(self) -> Iterator[None]:
        """A block in which there is the volume `data`, which all containers share."""
        self._say("volume", "create", self._name("data"))
        try:
            yield
        finally:
            self._say("volume", "rm", self._name("data"))

    @contextmanager
    def running(self, role: str) -> Iterator[Container]:
        """A block in which the container of a role runs. It is removed at the end."""
        log = self.folder / f"{role}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(self.command(role), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            grace_seconds = self._pod(role).get("terminationGracePeriodSeconds", 30)
            yield Container(self.engine, self._name(role), process, log, grace_seconds)
        finally:
            if process.poll() is None:
                self._say("rm", "--force", self._name(role))
            process.wait()

    def command(self, role: str, arguments: Sequence[str] | None = None) -> list[str]:
        """The command that runs the container of a role. `arguments` replace those of the manifest."""
        pod = self._pod(role)
        [container] = pod["containers"]
        user, limits = pod["securityContext"], container["resources"]["limits"]
        confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == confined
        command = [self.engine, "run", "--rm", "--interactive", "--name", self._name(role), "--network", "host"]
        command += ["--user", f"{user['runAsUser']}:{user['runAsGroup']}", "--cap-drop", "ALL", "--read-only"]
        command += ["--security-opt", "no-new-privileges", "--memory", limits["memory"].removesuffix("i")]
        if self.engine == "podman":
            command += ["--read-only-tmpfs=false"]  # it would mount more folders than those of the manifest
        for volume in container["volumeMounts"]:
            path = volume["mountPath"]
            command += [f"--volume={self._name('data')}:{path}" if volume["name"] == "data" else f"--tmpfs={path}"]
        command += [f"--volume={mount}" for mount in self.mounts]
        command += [f"--env={name}={value}" for name, value in self._environment(container).items()]
        return [*command, self.image, *(arguments or container["args"])]

    def _pod(self, role: str) -> Object:
        [spec] = [template["spec"] for name, template in pods(self.objects) if name == f"nern-{role}"]
        pod: Object = spec
        return pod

    def _environment(self, container: Object) -> dict[str, str]:
        secret = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in self.secrets.items()}}
        objects = {(found["kind"], found["metadata"]["name"]): found for found in self.objects}
        return variables(container, {**objects, ("Secret", "nern"): secret}) | self.settings

    def _name(self, thing: str) -> str:
        return f"{self.folder.name}-{thing}"

    def _say(self, *arguments: str) -> None:
        subprocess.run([self.engine, *arguments], check=True, stdout=subprocess.DEVNULL)
