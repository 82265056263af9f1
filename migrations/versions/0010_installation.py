"""The id of an installation, which its blob store has too."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table("installation", sa.Column("id", sa.String(36), primary_key=True))
    op.bulk_insert(table, [{"id": str(uuid4())}])


def downgrade() -> None:
    op.drop_table("installation")
