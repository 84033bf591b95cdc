"""Engines that serve the same checkpoint hold its weights once, whoever of them converted it."""

from __future__ import annotations

import re
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.engine import checkpoints
from workers.engines.build import FACTORY
from workers.engines.options import DEFAULT
from workers.engines.process import EngineProcess
from workers.ports import Pair

SIZES = {"num_hidden_layers": 12, "intermediate_size": 8192}
WEIGHTS_MB = 96
"""Nearly all of it in 24 matrices, of a size that the C library would rather keep than give back."""
_REGION = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (?:\S+\s+){4}(.*)$")
_FIELD = re.compile(r"^(Rss|Pss|Anonymous):\s+(\d+) kB$")


def mapped_mb(pid: int | None, suffix: str) -> dict[str, float]:
    """What a process has of the files that end like this: resident, and its share of that."""
    found = {"Rss": 0.0, "Pss": 0.0}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if region := _REGION.match(line):
            inside = region[1].endswith(suffix)
        elif inside and (field := _FIELD.match(line)) and field[1] in found:
            found[field[1]] += int(field[2]) / 1024
    return found


def own_mb(pid: int | None) -> float:
    """What a process has for itself alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return sum(int(kb) / 1024 for kb in re.findall(r"^Anonymous:\s+(\d+) kB$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Two engines of one checkpoint; the first one converted it."""
    folder = tmp_path_factory.mktemp("sharing")
    sizes = checkpoints.config_of
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "config_of", lambda variant: sizes(variant) | SIZES)
        checkpoint = checkpoints.make_checkpoint(folder / "checkpoint", checkpoints.VARIANTS["safetensors"])
    keywords = {
        "model": str(checkpoint),
        "device": "cpu",
        "precision": None,
        "max_tokens": None,
        "max_length": None,
        "threads": 1,
        "backend": "torch",  # OpenVINO computes with a copy in the processor's own layout
        "options": DEFAULT,
        "exact": False,
        "cache_dir": folder / "cache",
        "catalogue": Path("config/models.toml"),
        "check": False,
    }
    with ExitStack() as stack:
        started = [stack.enter_context(closing(EngineProcess(FACTORY, keywords))) for _ in range(2)]
        for engine in started:
            engine.entail([Pair("快递三天了", "物流"), Pair("the app", "crash")])
        yield started


def test_each_counts_half_of_the_weights_that_are_mapped(engines):
    for engine in engines:
        weights = mapped_mb(engine.pid, "model.safetensors")
        assert weights["Rss"] > WEIGHTS_MB
        assert weights["Pss"] == pytest.approx(weights["Rss"] / 2, rel=0.1)


def test_no_copy_of_the_weights_is_kept_not_even_by_the_one_that_converted_them(engines):
    first, second = (own_mb(engine.pid) for engine in engines)
    assert first - second < WEIGHTS_MB / 2
