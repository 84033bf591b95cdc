"""The README's table of guarantees and the files of ``tests/guarantees`` are one to one, in the same words."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = "tests/guarantees"
TABLE = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Guarantees")[2].partition("\n## ")[0]
ROWS = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in TABLE.splitlines() if "](tests/" in line]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / FOLDER).glob("test_*.py"))


def shown_in(cell: str) -> list[str]:
    """The paths that a cell links to."""
    return re.findall(r"\]\(([^)]+)\)", cell)


def in_plain_words(promise: str) -> str:
    """A promise as a docstring says it: without the page that a link in brackets leads to."""
    return re.sub(r" \(\[[^]]+\]\([^)]+\)\)", "", promise).replace("`", "")


@pytest.mark.parametrize(("promise", "where"), ROWS, ids=[promise[:50] for promise, _ in ROWS])
def test_a_guarantee_is_shown_by_one_file_that_begins_with_its_words(promise: str, where: str) -> None:
    (path,) = shown_in(where)
    assert path in FILES
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    assert " ".join(docstring.replace("`", "").split()).startswith(f"{in_plain_words(promise)}.")


def test_every_file_is_named_by_one_row() -> None:
    named = [path for _, where in ROWS for path in shown_in(where)]
    assert sorted(named) == FILES


@pytest.mark.parametrize("path", FILES)
def test_every_file_has_a_test(path: str) -> None:
    names = [node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if hasattr(node, "name")]
    assert any(name.startswith("test_") for name in names)


def test_there_are_guarantees() -> None:
    assert len(ROWS) >= 10
