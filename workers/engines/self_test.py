"""Before a model serves: it must tell what a text says from what it does not, and its kernels must be warm."""

from __future__ import annotations

from tagging.errors import ModelRefused
from workers.ports import Engine, Pair

WARM_UP_LENGTHS = (1, 12, 60, 250, 600)  # characters


def self_test(engine: Engine, *, entailed: Pair, contradicted: Pair) -> None:
    """Refuse a model that gets an obvious pair wrong.

    Raises:
        ModelRefused: The entailed pair's entailment logit is not above its contradiction logit, or the contradicted
            pair's not below. NaN is neither.
    """
    yes, no = engine.entail([entailed, contradicted]).logits
    told = []
    if not yes.entailment > yes.contradiction:
        told.append(f"{_shown(entailed)} should be entailed, but {_compared(yes)}")
    if not no.entailment < no.contradiction:
        told.append(f"{_shown(contradicted)} should be contradicted, but {_compared(no)}")
    if told:
        raise ModelRefused(
            f"{engine.info.name}: failed its self-test: {'; '.join(told)}. The likely cause is swapped columns: check"
            " entailment and contradiction of this model in config/models.toml. Otherwise it was not trained for"
            " zero-shot classification, or its own language and template need other self-test pairs there."
        )


def warm_up(engine: Engine, *, max_tokens: int = 0) -> None:
    """Run passes of several lengths, so that the first batch finds memory and kernels in place.

    Args:
        max_tokens: Padded tokens of one more, full pass of the longest pairs: what the device must have room for.

    Raises:
        DeviceOutOfMemory: There is no room for a single pair.
    """
    for length in WARM_UP_LENGTHS:
        engine.entail([Pair("热" * length, "身")])
    longest = engine.info.max_length
    # Texts differ, or they would be computed once; all are cut to the same length.
    engine.entail([Pair("热" * (longest + row), "身") for row in range(max_tokens // longest)])


def _shown(pair: Pair) -> str:
    return f"{pair.text!r} with {pair.hypothesis!r}"


def _compared(logit: tuple[float, float]) -> str:
    return f"entailment is {logit[0]:.3f} and contradiction {logit[1]:.3f}"
