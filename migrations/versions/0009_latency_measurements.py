# What latency gates measured.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "latency_measurements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("change_id", sa.Integer(), nullable=False),
        sa.Column("server", sa.String(100), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("gate", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seen", sa.Text(), nullable=False),
        sa.Column("started_at", sa.String(27), nullable=False),
        sa.Column("finished_at", sa.String(27), nullable=False),
        sa.ForeignKeyConstraint(["change_id"], ["changes.id"], name="fk_latency_measurements_change_id"),
        sa.PrimaryKeyConstraint("id", name="pk_latency_measurements"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_latency_measurements_change_id", "latency_measurements", ["change_id"])


def downgrade() -> None:
    op.drop_table("latency_measurements")
