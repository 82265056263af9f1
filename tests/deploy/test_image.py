"""The Dockerfile, as far as it can be read: what those who run the image rely on. `scripts/image check` runs the image."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.kubernetes import KUBERNETES
from tests.test_structure import ROOT

Stage = list[tuple[str, str]]


@pytest.fixture
def stages() -> dict[str, Stage]:
    """The instructions of each stage of the Dockerfile, by its name. The stage before the first FROM is ``."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {"": []}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            instruction, arguments = line.split(None, 1)
            if instruction == "FROM":
                found[arguments.partition(" AS ")[2] or "final"] = []
            list(found.values())[-1].append((instruction, arguments))
    return found


@pytest.fixture
def final(stages: dict[str, Stage]) -> Stage:
    """The instructions that make the image: those of the last stage and of its base."""
    [base] = [arguments for instruction, arguments in stages["final"] if instruction == "FROM"]
    return [*stages[base], *stages["final"]]


def values(stage: Stage, instruction: str) -> list[str]:
    return [arguments for found, arguments in stage if found == instruction]


def containers() -> list[dict[str, object]]:
    """The containers of the base, with the user of their pod."""
    found = []
    for name in ("api", "worker", "migrate"):
        [document] = [
            document
            for document in yaml.safe_load_all((KUBERNETES / "base" / f"{name}.yaml").read_text())
            if "template" in document["spec"]
        ]
        spec = document["spec"]["template"]["spec"]
        user = spec["securityContext"]
        found += [{**container, "user": f"{user['runAsUser']}:{user['runAsGroup']}"} for container in spec["containers"]]
    return found


def test_the_user_is_the_one_of_the_manifests(final: Stage) -> None:
    # A number, because Kubernetes can't tell whether a name is that of root.
    assert values(final, "USER") == ["10001:10001"]
    assert {container["user"] for container in containers()} == {"10001:10001"}
    assert any("install --directory --owner 10001 --group 10001 /data" in command for command in values(final, "RUN"))


def test_signals_reach_the_process(final: Stage) -> None:
    """A shell as process 1 would keep SIGTERM to itself, and Python as process 1 ignores it until it has a handler."""
    [entry], [command] = values(final, "ENTRYPOINT"), values(final, "CMD")
    assert json.loads(entry) == ["/usr/bin/tini", "--"]
    assert json.loads(command) == ["nern", "serve"]
    assert " tini " in f"{values(final, 'RUN')[0]} "
    # `command` of Kubernetes would replace the entry point.
    assert not [container for container in containers() if "command" in container]


def test_the_image_has_no_tools_of_the_build(stages: dict[str, Stage], final: Stage) -> None:
    assert not re.search(r"\bpip\b|venv|build-essential|gcc|setuptools", " ".join(values(final, "RUN")))
    assert [copied for copied in values(final, "COPY") if not copied.startswith("--from=")] == []
    assert {copied.split()[1] for copied in values(final, "COPY")} == {"/opt/nern", "/opt/code"}
    assert any("venv --without-pip /opt/nern" in command for command in values(stages["dependencies"], "RUN"))


def test_every_installation_is_pinned_and_compiled(stages: dict[str, Stage]) -> None:
    [environment] = values(stages["dependencies"], "ENV")
    assert "PIP_CONSTRAINT=/source/constraints.txt" in environment
    for name, folder in (("dependencies", "/opt/nern/lib"), ("code", "/opt/code/lib")):
        # Nobody can compile later: the root file system is read-only.
        last = values(stages[name], "RUN")[-1].strip()
        assert re.search(rf"compileall .*--invalidation-mode unchecked-hash .*{folder}$", last)


def test_the_build_gets_all_files_that_it_copies_and_no_others(stages: dict[str, Stage]) -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"
    copied: set[str] = set()
    for stage in stages.values():
        for arguments in values(stage, "COPY"):
            if not arguments.startswith("--from="):
                copied |= set(arguments.split()[:-1])
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_labels_say_where_the_image_comes_from(final: Stage) -> None:
    [labels] = values(final, "LABEL")
    named = dict(re.findall(r'org\.opencontainers\.image\.(\S+?)="([^"]*)"', labels))
    assert {"title", "description"} < named.keys()
    arguments = {
        "version": "$VERSION",
        "revision": "$REVISION",
        "source": "$SOURCE",
        "licenses": "$LICENSES",
        "base.name": "$BASE",
    }
    assert {name: value for name, value in named.items() if name not in ("title", "description")} == arguments
    # An argument is empty in a stage that does not declare it.
    assert {argument.partition("=")[0] for argument in values(final, "ARG")} == {
        value.removeprefix("$") for value in arguments.values()
    }


def test_every_argument_of_the_build_is_documented(stages: dict[str, Stage]) -> None:
    documented = (ROOT / "docs/deployment.md").read_text()
    for stage in stages.values():
        for argument in values(stage, "ARG"):
            assert f"| `{argument.partition('=')[0]}` |" in documented, argument


def test_builds_name_no_registry_of_packages(stages: dict[str, Stage]) -> None:
    """Who builds chooses the index: TORCH_INDEX is empty, and pip is asked for no other."""
    assert "TORCH_INDEX=" in values(stages["dependencies"], "ARG")
    assert not re.search(r"https?://", (ROOT / "Dockerfile").read_text())


def test_the_documented_processes_are_those_of_the_manifests() -> None:
    table = Path(ROOT / "docs/deployment.md").read_text()
    for container in containers():
        arguments = container["args"]
        assert isinstance(arguments, list)
        command = " ".join(arguments).removesuffix(" --loglevel info").removesuffix(" --no-worker")
        assert f"| `{command}`" in table, command
