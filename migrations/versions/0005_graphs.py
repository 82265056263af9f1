"""Checkpoints may have graphs, and jobs may describe a sequential network."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "graph",
        sa.Column("checkpoint_id", sa.String(length=36), nullable=False),
        sa.Column("program", sa.JSON(), nullable=False),
        sa.Column("skeleton", sa.LargeBinary(), nullable=True),
        sa.Column("initialisers", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name="graph_checkpoint_id_fkey"),
        sa.PrimaryKeyConstraint("checkpoint_id", name="graph_pkey"),
    )
    with op.batch_alter_table("checkpoint") as table:
        table.add_column(sa.Column("ports", sa.JSON(), nullable=True))
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("network", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.drop_column("network")
    with op.batch_alter_table("checkpoint") as table:
        table.drop_column("ports")
    op.drop_table("graph")
