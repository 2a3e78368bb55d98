# Models, versions with the blobs that they need, objectives.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_models"),
    )
    op.create_table(
        "versions",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("artifact", sa.String(length=71), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("inspection", sa.Text(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("registered_by", sa.String(length=100), nullable=False),
        sa.Column("registered_at", sa.String(27), nullable=False),
        sa.Column("same_bytes_as", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name="fk_versions_model"),
        sa.PrimaryKeyConstraint("model", "number", name="pk_versions"),
    )
    op.create_index("ix_versions_artifact", "versions", ["artifact"])
    op.create_table(
        "version_blobs",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["versions.model", "versions.number"], name="fk_version_blobs_model_number"
        ),
        sa.PrimaryKeyConstraint("model", "number", "sha256", name="pk_version_blobs"),
    )
    op.create_index("ix_version_blobs_sha256", "version_blobs", ["sha256"])
    op.create_table(
        "objectives",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("metric", sa.String(length=100), nullable=False),
        sa.Column("qualifier", sa.String(length=100), nullable=False),
        sa.Column("direction", sa.String(length=20), nullable=False),
        sa.Column("bound", sa.String(length=100), nullable=False),
        sa.Column("stakeholder", sa.String(length=100), nullable=False),
        sa.Column("weight", sa.String(length=100), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name="fk_objectives_model"),
        sa.PrimaryKeyConstraint("model", "name", name="pk_objectives"),
    )


def downgrade() -> None:
    op.drop_table("objectives")
    op.drop_table("version_blobs")
    op.drop_table("versions")
    op.drop_table("models")
