"""The README's walk through the API, as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import environment, serving
from tests.support.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parent.parent.parent


def test_the_walk(tmp_path: Path) -> None:
    walk = (ROOT / "README.md").read_text().partition("## A walk through the API")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", walk, re.DOTALL)
    assert len(blocks) >= 8
    # The walk takes Python from `.venv` in the current folder.
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (tmp_path / ".venv" / "bin" / name).symlink_to(sys.executable)
    script = "set -euo pipefail\n" + "\necho '--- block'\n".join(blocks)
    folder = tmp_path / "service"
    folder.mkdir()
    with serving(folder, {}) as (url, _):
        wanted = {
            **environment({"NERN": url, "TMPDIR": str(tmp_path)}),
            "VIRTUAL_ENV": sys.prefix,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *site_packages()]),
        }
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=wanted,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    answers = ended.stdout.split("--- block")
    assert '"database":"ok"' in answers[0]
    assert "cifar/resnet8" in answers[2]
    assert "event: state" in answers[4]
    assert "relative_error" in answers[4]
    assert '{"coordinate": [3, 0, 5]' in answers[5]
    assert '{"coordinate": [6, 63, 63]' in answers[5]
    assert next(tmp_path.glob("*/kernels.f32")).stat().st_size == 16 * 3 * 9 * 4
    assert "True {'original': " in answers[-3]
    assert answers[-2].count("accuracy 0.") == 2
    assert next(tmp_path.glob("*/rebuilt.onnx")).stat().st_size > 4 * 62_006
    assert "/problems/truncated-file" in answers[-1]


def site_packages() -> list[str]:
    """Where the packages of the environment that runs the tests are: a link to its interpreter does not know."""
    return [path for path in sys.path if path.endswith("site-packages")]
