"""What the packages import is what they ask to be installed, no more and no less."""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from tests.test_structure import PACKAGES, ROOT, imports

# Not imported by name, but used all the same: by uvicorn, by torch to write ONNX files, and by SQLAlchemy for PostgreSQL.
USED_BY_OTHERS = {"h11", "onnxscript", "psycopg"}

# Of the benchmarks alone, and installed by hand: CONTRIBUTING.md says how, and why.
BY_HAND = {"nncodec"}

# Come with the package that they are a part of, in the one version that it takes.
PARTS = {"kombu": "celery", "billiard": "celery", "pydantic-core": "pydantic"}

# Several packages have modules in this namespace. The first prefix of a module's name tells which one.
OPENTELEMETRY = {
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.proto": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry": "opentelemetry-api",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str | None = None) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {normal(re.split(r"[\[<>=! ;]", requirement)[0]) for requirement in requirements}


def imported(files: list[Path]) -> set[str]:
    """The distributions that these files import from."""
    modules = {name for path in files for name in imports(path)}
    spans = {name for name in modules if name.startswith("opentelemetry")}
    names = {name.partition(".")[0] for name in modules - spans}
    distributions = packages_distributions()
    ours = {*PACKAGES, "tests", "scripts", "bench", "attacks"}
    found = {normal(distributions[name][0]) for name in names - sys.stdlib_module_names - ours - BY_HAND}
    of_spans = {next(package for prefix, package in OPENTELEMETRY.items() if name.startswith(prefix)) for name in spans}
    return {PARTS.get(name, name) for name in found} | of_spans


def test_the_service_is_installed_with_what_it_imports() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    # The workers build networks of timm only if it is there, and spans are sent only if the extra for them is.
    assert imported(files) | USED_BY_OTHERS == declared() | declared("timm") | declared("otel")


def test_the_demo_is_installed_with_what_it_imports() -> None:
    missing = imported([ROOT / "scripts/demo.py"]) - declared()
    assert missing == declared("demo")


def test_tests_and_benchmarks_are_installed_with_what_they_import() -> None:
    files = [path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py")]
    assert imported(files) <= declared() | declared("demo") | declared("timm") | declared("otel") | declared("dev")


def installed(lines: Iterable[str], seen: set[str]) -> Iterator[tuple[str, str]]:
    """Names and versions of what requirements bring, also indirectly, but for the packages of CUDA."""
    for line in set(lines) - seen:
        seen.add(line)
        wanted = Requirement(line)
        with suppress(PackageNotFoundError):  # of another platform
            if not wanted.name.startswith(("nvidia-", "cuda-")):
                yield normal(wanted.name), version(wanted.name)
                further = [(line, Requirement(line).marker) for line in requires(wanted.name) or []]
                chosen = [{"extra": extra} for extra in ("", *wanted.extras)]
                yield from installed(
                    [line for line, marker in further if not marker or any(map(marker.evaluate, chosen))], seen
                )


def test_all_that_is_in_the_image_has_the_version_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = dict(line.split("==") for line in lines if line)
    extras = project["optional-dependencies"]
    found = dict(installed([*project["dependencies"], *extras["otel"], *extras["timm"]], set()))
    # redis needs it before Python 3.11.3, which is not in Debian 12.
    assert found | {"async-timeout": "5.0.1"} == pinned
