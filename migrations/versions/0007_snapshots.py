"""Snapshots of trainings, attempts that made no progress, faults of machines, and the order of the queue."""

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
        table.add_column(sa.Column("priority", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        table.add_column(sa.Column("owner", sa.String(), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("claimed_at", UtcDateTime(), nullable=True))
        table.drop_column("woken_at")
    queued = sa.text("state = 'queued'")
    op.create_index("job_queue", "job", ["priority", "owner", "id"], sqlite_where=queued, postgresql_where=queued)
    op.create_index("job_turn", "job", ["owner", "claimed_at"])
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
    op.drop_index("job_turn", "job")
    op.drop_index("job_queue", "job")
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("woken_at", UtcDateTime(), nullable=True))
        table.drop_column("claimed_at")
        table.drop_column("owner")
        table.drop_column("priority")
        table.drop_column("not_before")
        table.drop_column("faults")
        table.drop_column("fruitless")
