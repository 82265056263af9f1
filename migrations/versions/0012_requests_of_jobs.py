"""A job knows the request that created it, and the span of that request."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("request_id", sa.String(length=128)))
    op.add_column("job", sa.Column("traceparent", sa.String(length=55)))


def downgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.drop_column("traceparent")
        table.drop_column("request_id")
