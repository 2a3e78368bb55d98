# What a first change found in the repository, so that it can be put back.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("changes", sa.Column("found", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("changes", "found")
