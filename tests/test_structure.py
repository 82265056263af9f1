"""What the code may know, and what the documents must say."""

import ast
import asyncio
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nern.request import RECIPES, reference
from service import cli
from service import reference as settings_reference
from service.api.app import create_app
from service.serving.figures import FIGURES
from service.settings import Settings

ROOT = Path(__file__).parent.parent
PACKAGES = ("nern", "service", "worker", "migrations")
FORBIDDEN = {
    "nern": {"service", "worker", "migrations"},
    "service": {"worker"},
    "worker": {"migrations"},
    "migrations": {"worker", "nern"},
    "scripts": {"worker"},
    "attacks": {"worker", "migrations"},
    "bench": {"worker"},
}


def imports(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_know_only_what_they_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        known = {name.partition(".")[0] for name in imports(path)}
        assert not known & FORBIDDEN[package], f"{path} imports {known & FORBIDDEN[package]}"


def test_the_method_knows_no_http_no_database_and_no_queue() -> None:
    known = {name.partition(".")[0] for path in (ROOT / "nern").rglob("*.py") for name in imports(path)}
    assert not known & {"fastapi", "starlette", "sqlalchemy", "celery", "redis", "httpx", "uvicorn", "obstore", "alembic"}


def test_nothing_reads_pickles_but_the_machine_that_makes_data() -> None:
    readers = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")
               if re.search(r"torch\.load\(|pickle\.loads?\(|torch\.jit\.load", path.read_text())}  # fmt: skip
    # The command `nern export` runs on the machine of a person whose own weights it reads.
    assert readers == {"service/exporting.py"}
    assert "weights_only=False" not in "".join(path.read_text() for p in PACKAGES for path in (ROOT / p).rglob("*.py"))


def test_only_the_clock_knows_the_time() -> None:
    readers = {path.relative_to(ROOT).as_posix() for package in ("service", "worker", "migrations")
               for path in (ROOT / package).rglob("*.py")
               if re.search(r"\b(datetime\.(now|utcnow|today)|date\.today)\b", path.read_text())}  # fmt: skip
    assert readers == {"service/clock.py"}


def test_the_table_of_settings_is_up_to_date() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    assert settings_reference.updated(text) == text, "run python -m service.reference docs/settings.md"
    for name, field in Settings.model_fields.items():
        assert f"| `NERN_{name.upper()}` |" in text
        assert field.description, f"{name} has no description"


def test_every_route_is_documented(tmp_path: Path) -> None:
    documented = (ROOT / "docs/api.md").read_text()
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    routes = [(method.upper(), path) for path, operations in paths.items() for method in operations]
    assert len(routes) > 20
    for method, path in routes:
        assert f"`{method} {path}`" in documented, (method, path)


def test_the_reference_of_options_is_up_to_date() -> None:
    text = (ROOT / "docs/training.md").read_text()
    assert reference.updated(text) == text, "run python -m nern.request.reference docs/training.md"
    for recipe, request in RECIPES.items():
        assert f"| `{recipe}`" in text
        for option, field in request.model_fields.items():
            assert option == "recipe" or f"| `{option}` |" in text
            assert option == "recipe" or field.description, f"{option} has no description"


def test_every_part_that_readiness_tells_of_is_documented(tmp_path: Path) -> None:
    documented = (ROOT / "docs/operations.md").read_text()
    app = create_app(Settings(data_dir=tmp_path, inspectors=0), probes={"worker": lambda: None})
    for part in asyncio.run(app.state.context.readiness.states()):
        assert f"| `{part}` |" in documented, part


def test_the_log_lines_that_operators_look_for_exist() -> None:
    table = (ROOT / "docs/operations.md").read_text().partition("## When something is wrong")[2]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    assert len(lines) > 15
    code = "".join(path.read_text() for package in ("service", "worker") for path in (ROOT / package).rglob("*.py"))
    for fault, _, _, log, _ in lines[1:]:
        for quoted in re.findall(r"`([^`]+)`", log):
            assert quoted in code, f"{fault}: {quoted}"


def test_every_figure_is_documented() -> None:
    for name in FIGURES:
        assert f"`{name}`" in (ROOT / "docs/report.md").read_text()


def test_every_command_and_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    documented = (ROOT / "docs/settings.md").read_text()
    for command in ("serve", "worker", "migrate", "export"):
        assert f"`nern {command}`" in documented
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        for option in re.findall(r"--[a-z-]+", capsys.readouterr().out):
            assert option == "--help" or f"`{option}`" in documented, option


@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_every_benchmark_explains_itself_and_has_a_quick_form(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"bench.{path.stem}")
    if path.stem in ("tables", "figure"):
        return  # what benchmarks share, and what draws their rows
    assert f"`{path.name}`" in (ROOT / "CONTRIBUTING.md").read_text()
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit):
        module.main()
    described = capsys.readouterr().out
    assert "--quick" in described
    assert f"python -m bench.{path.stem}" in described


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_public_module_says_what_it_is() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_every_module_is_named_in_the_architecture_once() -> None:
    named = re.findall(r"^\| `([^`]+\.py)` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    files = [path for package in ("nern", "service", "worker") for path in (ROOT / package).rglob("*.py")]
    assert sorted(named) == sorted(path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py")


def test_links_to_sections_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for file, section in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", document.read_text()):
            target = document.parent / file if file else document
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert section in slugs, f"{document.name} links to {file}#{section}"
