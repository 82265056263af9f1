"""The release of this tree, and the one that could come next: trees that images are made from."""

import re
import shutil
from pathlib import Path

from alembic.script import ScriptDirectory

from tests.support.cluster.images import PACKAGES

ROOT = Path(__file__).parents[2]

MIGRATION = '''"""A column that only the next release knows."""

import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("of_the_next_release", sa.Integer(), server_default="1", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.drop_column("of_the_next_release")
'''


def next_release(folder: Path, version: str) -> Path:
    """Makes a tree of the release of a version, which has one migration more and no other changes."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Dockerfile", folder)
    project, count = re.subn('^version = ".*"$', f'version = "{version}"', (ROOT / "pyproject.toml").read_text(), flags=re.M)
    assert count == 1
    (folder / "pyproject.toml").write_text(project)
    head = ScriptDirectory(str(ROOT / "migrations")).get_current_head()
    (folder / "migrations" / "versions" / "next.py").write_text(MIGRATION.format(head=head))
    return folder
