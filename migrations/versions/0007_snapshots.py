"""Snapshots of trainings, attempts that made no progress, and faults of machines."""

import sqlalchemy as sa
from alembic import op

from service.store.tables import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("fruitless", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        table.add_column(sa.Column("faults", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        table.add_column(sa.Column("not_before", UtcDateTime(), nullable=True))
    # Every attempt of an earlier release began with the first step.
    op.execute("UPDATE job SET fruitless = attempt")
    op.create_table(
        "job_snapshot",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), primary_key=True),
        sa.Column("fence", sa.BigInteger(), primary_key=True),
        sa.Column("step", sa.BigInteger(), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("job_snapshot")
    with op.batch_alter_table("job") as table:
        table.drop_column("not_before")
        table.drop_column("faults")
        table.drop_column("fruitless")
