"""Running jobs can be paused. The jobs of a checkpoint and of a dataset are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("job_checkpoint_id", "job", ["checkpoint_id", "id"])
    op.create_index("job_dataset_id", "job", ["dataset_id"])


def downgrade() -> None:
    op.drop_index("job_dataset_id", "job")
    op.drop_index("job_checkpoint_id", "job")
    with op.batch_alter_table("job") as table:
        table.drop_column("pause_requested")
