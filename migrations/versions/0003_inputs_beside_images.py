"""Datasets may hold inputs in place of images, and tell what their labels are."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What only images have.
OF_IMAGES: dict[str, sa.types.TypeEngine[Any]] = {
    "images": sa.BigInteger(),
    "height": sa.BigInteger(),
    "width": sa.BigInteger(),
    "channels": sa.BigInteger(),
    "mean": sa.JSON(),
    "std": sa.JSON(),
}

DATASET = sa.table(
    "dataset",
    *(sa.column(name, type_) for name, type_ in OF_IMAGES.items()),
    sa.column("id", sa.String()),
    sa.column("kind", sa.String()),
    sa.column("classes", sa.BigInteger()),
    sa.column("inputs", sa.JSON()),
    sa.column("labels", sa.JSON()),
)


def upgrade() -> None:
    with op.batch_alter_table("dataset") as table:
        table.add_column(sa.Column("kind", sa.String(length=16), server_default="images", nullable=False))
        table.add_column(sa.Column("inputs", sa.JSON(), nullable=True))
        table.add_column(sa.Column("labels", sa.JSON(), nullable=True))
        table.add_column(sa.Column("class_names", sa.JSON(), nullable=True))
        table.add_column(sa.Column("notes", sa.JSON(), nullable=True))
        for name, type_ in OF_IMAGES.items():
            table.alter_column(name, existing_type=type_, nullable=True)
    # All datasets so far are images of uint8, whose labels are classes.
    connection = op.get_bind()
    for row in connection.execute(sa.select(DATASET)).all():
        shape = [row.images, row.height, row.width, row.channels]
        inputs = [{"name": "images", "dtype": "U8", "shape": shape}]
        labels = sa.null() if row.classes is None else {"kind": "classes", "dtype": "I64", "shape": [row.images]}
        connection.execute(sa.update(DATASET).where(DATASET.c.id == row.id).values(inputs=inputs, labels=labels))


def downgrade() -> None:
    # The older release knows images only: inputs become no images of no size.
    nothing: dict[str, Any] = {name: [] if name in ("mean", "std") else 0 for name in OF_IMAGES}
    op.execute(sa.update(DATASET).where(DATASET.c.kind != "images").values(nothing))
    with op.batch_alter_table("dataset") as table:
        for name, type_ in OF_IMAGES.items():
            table.alter_column(name, existing_type=type_, nullable=False)
        for name in ("notes", "class_names", "labels", "inputs", "kind"):
            table.drop_column(name)
