"""Creates the tables of resumable uploads."""

import sqlalchemy as sa
from alembic import op

from service.store.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "upload",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("header", sa.String(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("leased_until", UtcDateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("resource", sa.String(), nullable=True),
        sa.Column("problem", sa.JSON(), nullable=True),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("expires_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("upload_pkey")),
    )
    op.create_index("upload_expires_at", "upload", ["expires_at"], unique=False)
    op.create_index("upload_state", "upload", ["state", "id"], unique=False)

    op.create_table(
        "upload_part",
        sa.Column("upload_id", sa.String(length=36), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["upload.id"], name=op.f("upload_part_upload_id_fkey")),
        sa.PrimaryKeyConstraint("upload_id", "start", name=op.f("upload_part_pkey")),
    )


def downgrade() -> None:
    op.drop_table("upload_part")
    op.drop_index("upload_state", table_name="upload")
    op.drop_index("upload_expires_at", table_name="upload")
    op.drop_table("upload")
