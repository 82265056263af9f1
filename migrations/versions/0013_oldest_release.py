"""The database tells releases that are older than it whether they still work with it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("installation", sa.Column("oldest", sa.String(length=32)))


def downgrade() -> None:
    with op.batch_alter_table("installation") as table:
        table.drop_column("oldest")
