# The blobs of the files beside a config: labels, `configs/`.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "beside_blobs",
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("sha256", sa.String(71), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name="fk_beside_blobs_model"),
        sa.PrimaryKeyConstraint("model", "sha256"),
    )
    op.create_index("ix_beside_blobs_sha256", "beside_blobs", ["sha256"])


def downgrade() -> None:
    op.drop_table("beside_blobs")
