"""What becomes of a text that is longer than the model's window."""

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

Rule = Literal["truncate", "max", "mean"]

Overlap = Annotated[int, Field(ge=0, le=256)]

DEFAULT_OVERLAP: Final = 64


class LongText(NamedTuple):
    """How a long text is read. A text that fits is read whole, whatever the rule."""

    rule: Rule = "truncate"
    """truncate: only what fits, the longer of text and hypothesis cut first, as ModelScope does. max, mean: all of it,
    in windows; the answer is that of the window which speaks most for the label, or the mean of all logits."""
    overlap: int = DEFAULT_OVERLAP
    """Tokens that two neighbouring windows share; at most half a window."""


TRUNCATE: Final = LongText()


def name_of(long_text: LongText) -> str:
    """Tells answers apart that were read differently: empty for truncated ones, else the rule and its overlap."""
    return "" if long_text.rule == "truncate" else f"{long_text.rule}{long_text.overlap}"
