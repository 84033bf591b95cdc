"""``python -m tagging.schemas``: write the JSON Schemas of messages and answers into ``docs/message-contract.md``."""

import json
import sys
from pathlib import Path
from typing import Final

from tagging import answers, messages

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "message-contract.md"
BEGIN: Final = "<!-- from here to the end mark: written by `python -m tagging.schemas`, not by hand -->"
END: Final = "<!-- end of what `python -m tagging.schemas` writes -->"


def with_schemas(page: str) -> str:
    """The page with the schemas of today between its marks.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, in this order")
    return f"{before}{BEGIN}\n\n{_schemas()}\n{END}{after}"


def _schemas() -> str:
    schemas = {**messages.json_schemas(), **answers.json_schemas()}
    return "\n".join(
        f"### {name}\n\n```json\n{json.dumps(schema, ensure_ascii=False, indent=2)}\n```\n"
        for name, schema in schemas.items()
    )


def main(path: Path = PAGE) -> None:
    """Rewrite the page where it is out of date."""
    page = path.read_text(encoding="utf-8")
    fresh = with_schemas(page)
    if fresh != page:
        path.write_text(fresh, encoding="utf-8")
    sys.stdout.write(f"{path}: {'unchanged' if fresh == page else 'written'}\n")


if __name__ == "__main__":
    main()
