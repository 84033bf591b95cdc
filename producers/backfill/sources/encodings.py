"""How bytes become text: which encoding a file is in, and what becomes of bytes that it does not know."""

import codecs
import re
from contextlib import suppress
from typing import Final

from tagging.errors import SourceRefused

UNDECODABLE: Final = "tagmill.undecodable"
"""Error handler: each byte that is no text becomes a lone surrogate, U+DC00 and the byte. Its line alone is lost."""

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH: Final = re.compile(rb"[\x80-\xff]")
# Characters of GB 2312, which nearly all Chinese text consists of. Letters with accents in a Western encoding stand
# between ASCII letters, so they pass for rare characters of GB 18030, and seldom for these.
_COMMON_CHINESE: Final = re.compile(rb"[\xa1-\xf7][\xa1-\xfe]")
_REMEDY: Final = "Name it with --encoding, as Python does: utf-8, gb18030, utf-16-le, cp1252 …"


def _keep(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(UNDECODABLE, _keep)


def checked_encoding(name: str) -> str:
    """The name, if Python knows an encoding of text by it.

    Raises:
        SourceRefused: It does not.
    """
    try:
        "".encode(name)
    except (LookupError, ValueError) as e:
        raise SourceRefused(f"--encoding {name}: no encoding of text that Python knows") from e
    return name


def detect(head: bytes, *, where: str) -> str:
    """The encoding of a file that begins so: by its byte-order mark, else what most of its lines can be read in.

    A few damaged lines do not turn a file into another encoding: where half of the lines with anything beyond ASCII
    are UTF-8 the file is, since lines in another encoding nearly never are.

    Raises:
        SourceRefused: It is neither UTF-8 nor GB 18030.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    if head.count(0) * 4 > len(head):
        raise SourceRefused(f"{where}: looks like UTF-16 without a byte-order mark. {_REMEDY}")
    lines = [line for line in head.split(b"\n") if not line.isascii()]
    if _readable(lines, "utf-8") * 2 >= len(lines):
        return "utf-8"
    if _readable(lines, "gb18030") * 2 >= len(lines) and _mostly_chinese(b"".join(lines)):
        return "gb18030"
    raise SourceRefused(f"{where}: neither UTF-8 nor GB 18030. {_REMEDY}")


def flaw(text: str, encoding: str) -> str | None:
    """What keeps this from being text, if anything does: bytes that were none, or NUL."""
    if "\0" in text:
        return "a NUL byte"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"bytes that are not {encoding}"
    return None


def _readable(lines: list[bytes], encoding: str) -> int:
    decoder = codecs.getincrementaldecoder(encoding)
    count = 0
    for line in lines:
        with suppress(UnicodeDecodeError):
            # The last line of a beginning may break off within a character.
            decoder().decode(line, final=line is not lines[-1])
            count += 1
    return count


def _mostly_chinese(text: bytes) -> bool:
    return 4 * len(_COMMON_CHINESE.findall(text)) >= len(_HIGH.findall(text))
