"""Reading what systems send: bounded JSON, values by path, moments, and text out of markup."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any, Final

from integrations.system import Unreadable

MAX_CHARS: Final = 20_000
"""Of a text; what is longer is cut, since the beginning of a ticket says what it is about."""
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")
_BLOCKS: Final = frozenset({"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "blockquote", "pre"})
_UNSEEN: Final = frozenset({"script", "style", "head", "title"})
_MOST_NODES: Final = 20_000


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        Unreadable: It is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable("the body is not JSON") from None
    if not isinstance(value, dict):
        raise Unreadable("the body is not a JSON object")
    return value


def at(payload: Any, path: str) -> Any:
    """The value at a path such as ``ticket.articles[0].body``, where -1 is the last; None where there is none."""
    for name, index in _STEP.findall(path):
        if index:
            found = payload[int(index) :][:1] if isinstance(payload, list) else []
            payload = found[0] if found else None
        else:
            payload = payload.get(name) if isinstance(payload, Mapping) else None
    return payload


def items_at(payload: Any, path: str) -> list[Any]:
    """The list at a path; empty where there is none."""
    value = at(payload, path)
    return value if isinstance(value, list) else []


def text_at(payload: Any, path: str) -> str:
    """The text, or the number as text, at a path; empty where there is none."""
    value = at(payload, path)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def required(payload: Any, path: str) -> str:
    """The text or number at a path.

    Raises:
        Unreadable: There is none.
    """
    if not (value := text_at(payload, path).strip()):
        raise Unreadable(f"{path} is missing")
    return value


def moment_ms(value: object, *, otherwise: float) -> int:
    """A moment as milliseconds since the epoch, fit to be a revision: ISO 8601, or a number of seconds or ms.

    Args:
        value: As the payload has it.
        otherwise: Seconds since the epoch, where the payload has none.
    """
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if text.isdecimal() and len(text) < 17:
        number = int(text)
        return number if number > 10**11 else number * 1000
    try:
        read = datetime.fromisoformat(text.removesuffix(" UTC") if text.endswith(" UTC") else text)
        return max(0, round((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        return round(otherwise * 1000)


def headed(title: str, body: str) -> str:
    """A ticket's text: its title, and its body below."""
    return "\n\n".join(part for part in (title.strip(), body.strip()) if part)[:MAX_CHARS]


def text_of_html(html: str) -> str:
    """What a reader sees of a piece of HTML."""
    reader = _Text()
    reader.feed(html[: 20 * MAX_CHARS])
    reader.close()
    return re.sub(r"\n{3,}", "\n\n", "".join(reader.parts)).strip()


def text_of_adf(node: object) -> str:
    """The text of Atlassian's document format, a tree; a text stays as it is."""
    if isinstance(node, str):
        return node
    return re.sub(r"\n{3,}", "\n\n", "".join(_adf_parts(node))).strip()


def _adf_parts(root: object) -> Iterator[str]:
    waiting, seen = [root], 0
    while waiting and seen < _MOST_NODES:
        node, seen = waiting.pop(), seen + 1
        if isinstance(node, str):
            yield node
        if not isinstance(node, Mapping):
            continue
        if isinstance(node.get("text"), str):
            yield node["text"]
        ends = ["\n"] if node.get("type") in ("paragraph", "heading", "listItem", "hardBreak", "codeBlock") else []
        content = node.get("content")
        waiting += ends + (content[::-1] if isinstance(content, list) else [])


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # the parser's
        self._unseen += tag in _UNSEEN
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in _UNSEEN and self._unseen > 0
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)
