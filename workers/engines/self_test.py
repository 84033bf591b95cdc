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


def warm_up(engine: Engine, *, max_tokens: int) -> None:
    """Run passes of several lengths, the last as large as any will be, so that the first batch finds all in place.

    Raises:
        DeviceOutOfMemory: The device has no room for a single pair.
    """
    for length in WARM_UP_LENGTHS:
        engine.entail([Pair("热" * length, "身")])
    whole = max(1, min(max_tokens // engine.info.max_length, 64))
    texts = ["热" * (engine.info.max_length + row) for row in range(whole)]
    engine.entail([Pair(text, "身") for text in texts])


def _shown(pair: Pair) -> str:
    return f"{pair.text!r} with {pair.hypothesis!r}"


def _compared(logit: tuple[float, float]) -> str:
    return f"entailment is {logit[0]:.3f} and contradiction {logit[1]:.3f}"
