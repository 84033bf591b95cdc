"""The fake engine costs nothing and always answers alike."""

from __future__ import annotations

import struct
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from workers.engines.fake import FakeEngine, fake_logit
from workers.ports import Pair


@given(text=st.text(st.characters()), hypothesis=st.text())
def test_logits_are_the_pairs_own_and_exact_in_float32(text: str, hypothesis: str) -> None:
    logit = fake_logit(Pair(text, hypothesis))
    assert logit == fake_logit(Pair(text, hypothesis))
    assert logit == struct.unpack("ff", struct.pack("ff", *logit))
    assert all(-4 <= value < 4 for value in logit)


def test_text_and_hypothesis_are_not_interchangeable() -> None:
    assert fake_logit(Pair("ab", "c")) != fake_logit(Pair("a", "bc"))


def test_passes_take_the_time_they_are_told_to() -> None:
    engine = FakeEngine(pass_s=0.02, max_tokens=10)
    started = time.perf_counter()
    answer = engine.entail([Pair("12345", "12")] * 2)  # ten tokens each, so two passes
    assert time.perf_counter() - started >= 0.04
    assert (answer.device_ms, answer.padded_tokens) == (40.0, 20)


def test_parents_of_engine_processes_import_no_torch() -> None:
    code = (
        "import sys, workers.engines.fake, workers.engines.build, workers.engines.process, workers.engines.fetch;"
        "sys.exit(bool({'torch', 'transformers', 'modelscope', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
