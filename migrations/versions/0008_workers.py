"""Workers that are alive, and where jobs ran."""

import sqlalchemy as sa
from alembic import op

from service.store.tables import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "worker",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("about", sa.JSON(), nullable=False),
        sa.Column("free_memory", sa.BigInteger(), nullable=False),
        sa.Column("fault", sa.String(), nullable=True),
        sa.Column("ended", sa.String(), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
    )
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("worker", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.drop_column("worker")
    op.drop_table("worker")
