# When an environment was removed: its row stays, because changes and revisions name it.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("environments", sa.Column("removed_at", sa.String(27), nullable=True))


def downgrade() -> None:
    op.drop_column("environments", "removed_at")
