"""Whether an engine's memory grows: batches of ever other texts and sizes, its resident memory looked at in between."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.workload import IDEOGRAPHS
from tagging.long_text import LongText
from workers.engines.build import build_engine, child_environment
from workers.ports import Pair

_RULES: Final = (LongText(), LongText("max"), LongText("mean"))
_LOOKS: Final = 20
_WARM: Final = 4
"""Looks that pass before growth counts: by then nearly every shape has been met and each cache is full."""


def run(*, batches: int, precision: str, echo: Callable[[str], None]) -> dict[str, Any]:
    """Resident memory over the batches: at each look, and how much it grew once the engine was warm."""
    os.environ.update(child_environment("cpu", 1, os.environ))  # what an engine process has, before torch is imported
    engine = build_engine("demo", precision=precision, threads=1, in_process=True)
    draw = random.Random(1)
    looks: list[float] = []
    for number in range(1, batches + 1):
        engine.entail(_batch(draw))
        if number % (batches // _LOOKS) == 0:
            looks.append(_resident_mb())
            echo(f"{number:,} batches: {looks[-1]:.0f} MB")
    engine.close()
    warm = looks[_WARM:]
    return {
        "batches": batches,
        "precision": precision,
        "rss_mb": [round(look, 1) for look in looks],
        "grown_mb": round(warm[-1] - warm[0], 1),
        "grown_bytes_per_batch": round((warm[-1] - warm[0]) * 2**20 / (batches * (len(warm) - 1) / _LOOKS), 1),
    }


def _batch(draw: random.Random) -> list[Pair]:
    """One to four texts, most of them short and some longer than the model, each with one to four labels."""
    texts = ["".join(draw.choices(IDEOGRAPHS, k=_length(draw))) for _ in range(draw.randint(1, 4))]
    rule = draw.choice(_RULES)
    return [
        Pair(text, "".join(draw.choices(IDEOGRAPHS, k=3)), rule) for text in texts for _ in range(draw.randint(1, 4))
    ]


def _length(draw: random.Random) -> int:
    return 1200 if draw.random() < 0.01 else draw.choice((5, 20, 40, 80))


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
