"""What the engine benchmark asks: support texts of skewed lengths, label sets that come again, and repeats."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

IDEOGRAPHS: Final = [chr(0x4E00 + i) for i in range(3000)]
"""Each is one token of `benchmarks.checkpoints`' vocabulary, so that characters are tokens."""

_LABEL_SETS: Final = 20
_MEDIAN_TOKENS: Final = 44
_SPREAD: Final = 0.85
_SHORTEST, _LONGEST = 6, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A text and the labels that it is asked about."""

    text: str
    labels: tuple[str, ...]
    kind: str
    """`fresh`; `relabelled`: a text seen before, with another label set; `repeat`: both seen before."""

    @property
    def pairs(self) -> int:
        """What it costs an engine without caches."""
        return len(self.labels)


def workload(*, requests: int = 400, seed: int = 1) -> list[Request]:
    """So many requests: 30 % repeat an earlier one, a further 20 % ask an earlier text about other labels.

    Text lengths are log-normal: median 44 tokens, mean about 62, cut at 300; label sets hold 3 to 10 labels.
    """
    rng = random.Random(seed)
    sets = [tuple(_labels(rng)) for _ in range(_LABEL_SETS)]
    asked: list[Request] = []
    for _ in range(requests):
        kind = rng.choices(("fresh", "relabelled", "repeat"), weights=(50, 20, 30))[0] if len(asked) > 9 else "fresh"
        match kind:
            case "repeat":
                earlier = rng.choice(asked)
                asked.append(Request(text=earlier.text, labels=earlier.labels, kind=kind))
            case "relabelled":
                earlier = rng.choice(asked)
                others = [labels for labels in sets if labels != earlier.labels]
                asked.append(Request(text=earlier.text, labels=rng.choice(others), kind=kind))
            case _:
                asked.append(Request(text=_text(rng), labels=rng.choice(sets), kind=kind))
    return asked


def views(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """The requests as a worker would see them: so many at once."""
    left = iter(requests)
    while view := list(islice(left, size)):
        yield view


def _text(rng: random.Random) -> str:
    length = round(rng.lognormvariate(0, _SPREAD) * _MEDIAN_TOKENS)
    return "".join(rng.choices(IDEOGRAPHS, k=min(_LONGEST, max(_SHORTEST, length))))


def _labels(rng: random.Random) -> Iterator[str]:
    for _ in range(rng.randint(3, 10)):
        yield "".join(rng.choices(IDEOGRAPHS, k=rng.randint(2, 5)))
