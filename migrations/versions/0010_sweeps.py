# Sweeps, their trials and measurements, and the fingerprints of what was measured on.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("spec_digest", sa.String(71), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("load", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("objectives", sa.Text(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("started_by", sa.String(100), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("environment", sa.String(100), nullable=True),
        sa.Column("base_revision", sa.Integer(), nullable=True),
        sa.Column("bench", sa.String(500), nullable=False),
        sa.Column("began_at", sa.String(27), nullable=True),
        sa.Column("finished_at", sa.String(27), nullable=True),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("evidence", sa.String(71), nullable=True),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.String(27), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sweeps_model_sweeps_state", "sweeps", ["model", "state"])
    op.create_index("ix_sweeps_state", "sweeps", ["state"])
    op.create_table(
        "sweep_trials",
        sa.Column("sweep_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("candidate", sa.String(71), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("artifact", sa.String(71), nullable=False),
        sa.Column("config", sa.Text(), nullable=True),
        sa.Column("config_digest", sa.String(71), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("base", sa.Boolean(), nullable=False),
        sa.Column("refused", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("fates", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_sweep_trials_sweep_id"),
        sa.PrimaryKeyConstraint("sweep_id", "number", name="pk_sweep_trials"),
        sa.UniqueConstraint("sweep_id", "candidate", name="uq_sweep_trials_sweep_id_candidate"),
    )
    op.create_table(
        "sweep_measurements",
        sa.Column("sweep_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("round", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("candidate", sa.String(71), nullable=False),
        sa.Column("claim", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_sweep_measurements_sweep_id"),
        sa.PrimaryKeyConstraint("sweep_id", "round", "place", name="pk_sweep_measurements"),
    )
    op.create_table(
        "fingerprints",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_fingerprints"),
    )


def downgrade() -> None:
    op.drop_table("fingerprints")
    op.drop_table("sweep_measurements")
    op.drop_table("sweep_trials")
    op.drop_table("sweeps")
