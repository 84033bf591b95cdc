"""The logits of an answer, beside it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the column; workers that do not know it go on writing rows without it."""
    op.add_column("tags", sa.Column("logits", sa.LargeBinary))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("tags", "logits")
