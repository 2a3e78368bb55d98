# Environments, servers, deployments, revisions; change requests, plans, votes, journal.
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("hypothesis", sa.Text(), nullable=False),
        sa.Column("expected_effect", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=100), nullable=False),
        sa.Column("last_editor", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27), nullable=False),
        sa.Column("plan_number", sa.Integer(), nullable=False),
        sa.Column("break_glass", sa.Text(), nullable=True),
        sa.Column("review", sa.String(length=10), nullable=False),
        sa.Column("acknowledged", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.String(27), nullable=True),
        sa.Column("proofs", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_changes_environment_changes_model_changes_state", "changes", ["environment", "model", "state"], unique=False
    )
    op.create_table(
        "environments",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("policy_number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_environments"),
    )
    op.create_table(
        "journal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("change_id", sa.Integer(), nullable=True),
        sa.Column("server", sa.String(length=100), nullable=False),
        sa.Column("direction", sa.String(length=10), nullable=False),
        sa.Column("effect", sa.String(length=20), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("because", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.String(27), nullable=False),
        sa.Column("finished_at", sa.String(27), nullable=True),
        sa.Column("error_code", sa.String(length=50), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_journal"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_journal_change_id", "journal", ["change_id"], unique=False)
    op.create_index("ix_journal_server_journal_model", "journal", ["server", "model"], unique=False)
    op.create_table(
        "loads",
        sa.Column("server", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("newest_ns", sa.String(length=24), nullable=False),
        sa.Column("loaded_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("server", "model", name="pk_loads"),
    )
    op.create_table(
        "revisions",
        sa.Column("environment", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_digest", sa.String(length=71), nullable=False),
        sa.Column("change_id", sa.Integer(), nullable=True),
        sa.Column("accepted_at", sa.String(27), nullable=False),
        sa.Column("proofs", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("environment", "model", "number", name="pk_revisions"),
    )
    op.create_table(
        "approvals",
        sa.Column("change_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("plan_digest", sa.String(length=71), nullable=False),
        sa.Column("principal", sa.String(length=100), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.ForeignKeyConstraint(["change_id"], ["changes.id"], name="fk_approvals_change_id"),
        sa.PrimaryKeyConstraint("change_id", "plan_digest", "principal", name="pk_approvals"),
    )
    op.create_table(
        "deployments",
        sa.Column("environment", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("active_change", sa.Integer(), nullable=True),
        sa.Column("direction", sa.String(length=10), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.String(27), nullable=True),
        sa.Column("drift", sa.Text(), nullable=False),
        sa.Column("watched_at", sa.String(27), nullable=True),
        sa.ForeignKeyConstraint(["environment"], ["environments.name"], name="fk_deployments_environment"),
        sa.PrimaryKeyConstraint("environment", "model", name="pk_deployments"),
    )
    op.create_table(
        "plans",
        sa.Column("change_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("base_revision", sa.Integer(), nullable=False),
        sa.Column("base_digest", sa.String(length=71), nullable=False),
        sa.Column("desired", sa.Text(), nullable=False),
        sa.Column("reload_class", sa.String(length=20), nullable=False),
        sa.Column("clauses", sa.Text(), nullable=False),
        sa.Column("diff", sa.Text(), nullable=False),
        sa.Column("gates", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("made_by", sa.String(length=100), nullable=False),
        sa.Column("made_at", sa.String(27), nullable=False),
        sa.Column("acknowledged", sa.Text(), server_default="[]", nullable=False),
        sa.ForeignKeyConstraint(["change_id"], ["changes.id"], name="fk_plans_change_id"),
        sa.PrimaryKeyConstraint("change_id", "number", name="pk_plans"),
    )
    op.create_table(
        "servers",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("environment", sa.String(length=100), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("metrics_url", sa.String(), nullable=True),
        sa.Column("repository", sa.String(), nullable=False),
        sa.Column("admin_key", sa.String(), nullable=True),
        sa.Column("log_file", sa.String(), nullable=True),
        sa.Column("home", sa.String(), nullable=True),
        sa.Column("tls_ca", sa.String(), nullable=True),
        sa.Column("tls_certificate", sa.String(), nullable=True),
        sa.Column("tls_key", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.ForeignKeyConstraint(["environment"], ["environments.name"], name="fk_servers_environment"),
        sa.PrimaryKeyConstraint("name", name="pk_servers"),
    )
    op.create_index("ix_servers_environment", "servers", ["environment"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_servers_environment", table_name="servers")
    op.drop_table("servers")
    op.drop_table("plans")
    op.drop_table("deployments")
    op.drop_table("approvals")
    op.drop_table("revisions")
    op.drop_table("loads")
    op.drop_index("ix_journal_server_journal_model", table_name="journal")
    op.drop_index("ix_journal_change_id", table_name="journal")
    op.drop_table("journal")
    op.drop_table("environments")
    op.drop_index("ix_changes_environment_changes_model_changes_state", table_name="changes")
    op.drop_table("changes")
