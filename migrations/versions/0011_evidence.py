# Evidence of a plan, and the machines of servers that it is held against.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("plans", sa.Column("evidence", sa.Text(), nullable=True))
    op.create_table(
        "server_fingerprints",
        sa.Column("server", sa.String(71), nullable=False),
        sa.Column("environment", sa.String(100), nullable=False),
        sa.Column("fingerprint", sa.String(71), nullable=False),
        sa.Column("seen_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("server", name="pk_server_fingerprints"),
    )
    op.create_index("ix_server_fingerprints_environment", "server_fingerprints", ["environment"])


def downgrade() -> None:
    op.drop_table("server_fingerprints")
    op.drop_column("plans", "evidence")
