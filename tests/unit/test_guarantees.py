"""Each guarantee of the README names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = (ROOT / "README.md").read_text().partition("## Guarantees")[2].partition("\n## ")[0]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and "](" in line]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:50])
def test_a_guarantee_is_shown_by_tests_that_are_there(row: str) -> None:
    shown = re.findall(r"\]\(([^)]+)\)", row)
    assert any(path.startswith("tests/") for path in shown)
    assert [path for path in shown if not (ROOT / path).exists()] == []


def test_there_are_guarantees() -> None:
    assert len(ROWS) >= 10
