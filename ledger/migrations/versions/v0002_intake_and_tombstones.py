"""The intake, and what is left of documents that were erased."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "intake",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("ref", sa.Text),
        sa.Column("kind", sa.Text),
        sa.Column("revision", sa.BigInteger),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("publishes", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("next_publish_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_intake"),
        sa.UniqueConstraint("source", "idempotency_key", name="uq_intake_source_idempotency_key"),
    )
    op.create_index("ix_intake_due", "intake", ["state", "queue", "next_publish_at"])
    op.create_index("ix_intake_finished", "intake", ["state", "finished_at"])
    op.create_index("ix_intake_document", "intake", ["ref", "source"])
    has_text = sa.text("body IS NOT NULL")
    op.create_index("ix_intake_texts", "intake", ["finished_at"], sqlite_where=has_text, postgresql_where=has_text)
    op.create_table(
        "tombstones",
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("document", name="pk_tombstones"),
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("tombstones")
    op.drop_table("intake")
