"""Lines of text, none longer than fits into memory whatever the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TextIO

MAX_LINE_CHARS: Final = 1 << 20
_KEPT_CHARS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LongLine:
    """A line that was not kept: its beginning, and how long it is."""

    beginning: str
    chars: int

    @property
    def reason(self) -> str:
        """What is wrong with it."""
        return f"a line of {self.chars:,} characters, limit is {MAX_LINE_CHARS:,}"


Line = str | LongLine


def bounded_lines(text: TextIO) -> Iterator[Line]:
    """Each line with its line end; of one that is too long the beginning, while the rest is passed over."""
    while line := text.readline(MAX_LINE_CHARS):
        if len(line) < MAX_LINE_CHARS or _ended(line):
            yield line
        else:
            yield LongLine(beginning=line[:_KEPT_CHARS], chars=len(line) + _passed_over(text))


def kept(line: Line) -> str:
    """What there is of a line, without its line end."""
    return (line.beginning if isinstance(line, LongLine) else line).rstrip("\r\n")


def _passed_over(text: TextIO) -> int:
    chars = 0
    while piece := text.readline(MAX_LINE_CHARS):
        chars += len(piece.rstrip("\r\n"))
        if _ended(piece):
            break
    return chars


def _ended(line: str) -> bool:
    return line[-1] in "\r\n"
