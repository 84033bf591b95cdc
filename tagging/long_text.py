"""What becomes of a text that is longer than the model's window."""

from typing import Final, Literal, NamedTuple

Rule = Literal["truncate", "max", "mean"]

DEFAULT_OVERLAP: Final = 64


class LongText(NamedTuple):
    """How a long text is read. A text that fits is read whole, whatever the rule."""

    rule: Rule = "truncate"
    """truncate: only what fits, the longer of text and hypothesis cut first, as ModelScope does. max, mean: all of it,
    in windows; the answer is that of the window which speaks most for the label, or the mean of all logits."""
    overlap: int = DEFAULT_OVERLAP
    """Tokens that two neighbouring windows share; at most half a window."""


TRUNCATE: Final = LongText()
