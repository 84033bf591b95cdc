"""A batch scores as each of its texts alone, within what each precision allows.

The bounds are those of ``docs/precision.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import tagmill
from workers.engines.build import build_engine
from workers.ports import Engine, Pair

LABELS = ["物流", "退款", "登录", "账号密码", "billing", "crash report"]
SAMPLES = Path(tagmill.__file__).with_name("samples.jsonl")
BOUNDS = {  # logits: to each text alone, to float32
    "float32": (1e-5, 0.0),
    "bfloat16": (0.05, 0.25),
    "float16": (0.005, 0.025),
    "int8": (0.05, 2.0),
}


def pairs() -> list[Pair]:
    texts = [json.loads(line)["text"] for line in SAMPLES.read_text(encoding="utf-8").splitlines()[::4]]
    return [Pair(text, label) for text in texts for label in LABELS]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Engine]:
    cache_dir = tmp_path_factory.mktemp("converted")

    @cache
    def engine(precision: str) -> Engine:
        return build_engine("demo", precision=precision, in_process=True, check=False, cache_dir=cache_dir, threads=1)

    return engine


@pytest.mark.parametrize("precision", BOUNDS)
def test_a_text_scores_in_a_batch_as_it_does_alone(demo: Callable[[str], Engine], precision: str) -> None:
    engine = demo(precision)
    together = np.array(engine.entail(pairs()).logits)
    alone = np.array([engine.entail([pair]).logits[0] for pair in pairs()])
    assert np.abs(together - alone).max() <= BOUNDS[precision][0]


@pytest.mark.parametrize("precision", [precision for precision in BOUNDS if precision != "float32"])
def test_a_lower_precision_stays_near_float32(demo: Callable[[str], Engine], precision: str) -> None:
    difference = np.array(demo(precision).entail(pairs()).logits) - np.array(demo("float32").entail(pairs()).logits)
    assert 0 < np.abs(difference).max() <= BOUNDS[precision][1]


def test_the_bounds_are_those_of_the_page() -> None:
    page = (Path(tagmill.__file__).parents[1] / "docs" / "precision.md").read_text(encoding="utf-8")
    for precision, (alone, to_float32) in BOUNDS.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| {precision}"))
        assert f"| {_shown(alone)} (" in line
        assert f"| {_shown(to_float32)} (" in line or not to_float32


def _shown(bound: float) -> str:
    return "1e-5" if bound == 1e-5 else f"{bound:g}"
