"""Which tags and notes on tickets are our own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "own_tags",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("ticket", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("label_set", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("intended_at", moment, nullable=False),
        sa.Column("set_at", moment),
        sa.Column("removed_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_own_tags"),
    )
    op.create_index("ix_own_tags_ticket", "own_tags", ["account", "ticket"])
    op.create_index("ix_own_tags_document", "own_tags", ["ref", "source"])
    op.create_index("ix_own_tags_set", "own_tags", ["set_at"])
    op.create_table(
        "own_notes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("noted_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_own_notes"),
    )
    op.create_index("ix_own_notes_document", "own_notes", ["ref", "source"])
    op.create_index("ix_own_notes_noted_at", "own_notes", ["noted_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("own_notes")
    op.drop_table("own_tags")
