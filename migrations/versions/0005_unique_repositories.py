# No two servers have one repository, whoever adds them at the same time.
from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("uq_servers_repository", "servers", ["repository"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_servers_repository", table_name="servers")
