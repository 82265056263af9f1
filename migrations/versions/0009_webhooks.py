"""Webhooks of jobs, and their messages."""

import sqlalchemy as sa
from alembic import op

from service.store.tables import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("webhook", sa.JSON(), nullable=True))
    op.create_table(
        "delivery",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("job_id", sa.String(36), sa.ForeignKey("job.id"), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.JSON(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_index("delivery_due", "delivery", ["state", "due_at"])
    op.create_index("delivery_job_id", "delivery", ["job_id"])


def downgrade() -> None:
    op.drop_table("delivery")
    with op.batch_alter_table("job") as table:
        table.drop_column("webhook")
