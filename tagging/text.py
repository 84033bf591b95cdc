"""What is done to a text before anything else sees it."""

import re
import unicodedata
from typing import Final

_NEWLINES: Final = re.compile(r"\r\n?|\u2028|\u2029")
# C0 and C1 controls except tab and newline; lone surrogates; non-characters. A tokenizer drops or
# mangles them, databases refuse NUL, and terminals act on the rest.
_UNWANTED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text without control characters, lone surrogates and outer white space; line ends become ``\\n``.

    Letters are left as they are: the model's own tokenizer normalises them, and an answer must not depend on
    who normalised first.
    """
    if text.isprintable():
        return text.strip()  # most texts; what is replaced below is not printable
    text = _NEWLINES.sub("\n", text)
    text = _SURROGATES.sub("\ufffd", text)
    return _UNWANTED.sub("", text).strip()


def normalise_label(label: str) -> str:
    """The form in which two labels are compared: NFKC, trimmed, inner white space single, case-folded."""
    return " ".join(unicodedata.normalize("NFKC", label).split()).casefold()
