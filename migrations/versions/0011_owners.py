"""Everything has an owner. Owners have API keys, and share things for reading."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OWNED = ("checkpoint", "dataset", "predictor", "upload")
LISTED = ("checkpoint", "dataset", "job", "predictor")

# The unique indexes that begin with the owner now, and the other columns. Deleted rows do not count.
UNIQUE = {"checkpoint": ("checkpoint_sha256_key", ["sha256", "key"]), "dataset": ("dataset_identity", ["identity"])}
NOT_DELETED = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    for name in OWNED:
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("owner", sa.String(length=64), server_default=sa.text("''"), nullable=False))
    with op.batch_alter_table("job") as table:
        table.alter_column(
            "owner", existing_type=sa.String(), type_=sa.String(length=64), existing_server_default=sa.text("''")
        )
        table.drop_constraint("job_idempotency_key_key", type_="unique")
    op.create_index("job_idempotency_key", "job", ["owner", "idempotency_key"], unique=True)
    op.create_index("job_owner_state", "job", ["owner", "state", "id"])
    for name in LISTED:
        op.create_index(f"{name}_owner", name, ["owner", "id"])
    for name, (index, columns) in UNIQUE.items():
        _replace(name, index, ["owner", *columns])
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=36), primary_key=True),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("start", sa.String(length=16), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_index("api_key_owner", "api_key", ["owner", "id"])
    op.create_table(
        "share",
        sa.Column("object_id", sa.String(length=36), primary_key=True),
        sa.Column("reader", sa.String(length=64), primary_key=True),
    )
    op.create_index("share_reader", "share", ["reader", "object_id"])


def downgrade() -> None:
    op.drop_table("share")
    op.drop_table("api_key")
    for name, (index, columns) in UNIQUE.items():
        _replace(name, index, columns)
    for name in LISTED:
        op.drop_index(f"{name}_owner", name)
    op.drop_index("job_owner_state", "job")
    op.drop_index("job_idempotency_key", "job")
    with op.batch_alter_table("job") as table:
        table.create_unique_constraint("job_idempotency_key_key", ["idempotency_key"])
        table.alter_column(
            "owner", existing_type=sa.String(length=64), type_=sa.String(), existing_server_default=sa.text("''")
        )
    for name in OWNED:
        with op.batch_alter_table(name) as table:
            table.drop_column("owner")


def _replace(table: str, index: str, columns: list[str]) -> None:
    op.drop_index(index, table)
    op.create_index(index, table, columns, unique=True, sqlite_where=NOT_DELETED, postgresql_where=NOT_DELETED)
