"""Which state_dict of its file a checkpoint is."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOT_DELETED = {"sqlite_where": sa.text("deleted_at IS NULL"), "postgresql_where": sa.text("deleted_at IS NULL")}


def upgrade() -> None:
    with op.batch_alter_table("checkpoint") as table:
        table.add_column(sa.Column("key", sa.String(), server_default=sa.text("''"), nullable=False))
        table.add_column(sa.Column("first", sa.Boolean(), server_default=sa.true(), nullable=False))
        table.add_column(sa.Column("choice", sa.JSON(), nullable=True))
        table.drop_index("checkpoint_sha256")
        table.create_index("checkpoint_sha256_key", ["sha256", "key"], unique=True, **NOT_DELETED)


def downgrade() -> None:
    with op.batch_alter_table("checkpoint") as table:
        table.drop_index("checkpoint_sha256_key")
        table.create_index("checkpoint_sha256", ["sha256"], unique=True, **NOT_DELETED)
        for name in ("choice", "first", "key"):
            table.drop_column(name)
