"""``python -m benchmarks.soak``: whether the engine's memory grows with the batches it has scored.

The demo model in this process, random batches of all lengths, some repeated, some to be read in windows. Memory is read
after a tenth of the batches, when all shapes have been met, and at the end; the difference is what matters.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from tagging.long_text import LongText
from workers.ports import Pair

LETTERS: Final = "我的快递三天没动了退款登录发票账号密码酒店空调半夜坏网络连接 abcdefghij,.!?"
RULES: Final = (LongText(), LongText("max"), LongText("mean"))
LABELS: Final = [f"{first}{second}" for first in "物流退款登录发票账号" for second in "问题咨询"]


@click.command()
@click.option("--batches", default=100_000, show_default=True)
@click.option("--precision", default="float32", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(batches: int, precision: str, as_json: bool) -> None:
    """Score so many random batches and say how much memory grew on the way."""
    figures = soak(batches, precision=precision)
    click.echo(json.dumps(figures) if as_json else "\n".join(f"{name:<18} {value}" for name, value in figures.items()))


def soak(batches: int, *, precision: str = "float32") -> dict[str, Any]:
    """Memory in MB after a tenth of the batches and at the end, with what was scored."""
    from workers.engines.build import build_engine, child_environment

    os.environ.update(child_environment("cpu", 1, os.environ))  # what an engine process has, before torch is imported
    engine = build_engine("demo", precision=precision, threads=1, in_process=True)
    pairs, settled_mb, began = 0, 0.0, time.perf_counter()
    for number, batch in enumerate(_batches(batches)):
        pairs += len(engine.entail(batch).logits)
        if number == batches // 10:
            settled_mb = _resident_mb()
    grown_mb = _resident_mb() - settled_mb
    engine.close()
    return {
        "batches": batches,
        "pairs": pairs,
        "precision": precision,
        "settled_rss_mb": round(settled_mb, 1),
        "grown_mb": round(grown_mb, 1),
        "seconds": round(time.perf_counter() - began),
    }


def _batches(count: int) -> Iterator[list[Pair]]:
    draw = random.Random(1)
    for _ in range(count):
        text = "".join(draw.choices(LETTERS, k=draw.choice((5, 20, 40, 80, 300) if draw.random() < 0.98 else (1200,))))
        yield [Pair(text, label, draw.choice(RULES)) for label in draw.sample(LABELS, draw.randint(1, 4))]


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
