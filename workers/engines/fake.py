"""An engine that costs nothing: logits are drawn from a checksum of the pair, so equal pairs score equally anywhere."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

from workers.engines.passes import plan
from workers.ports import Entailment, Logit, ModelInfo, Pair

SPECIALS = 3


class FakeEngine:
    """Scores any pair, deterministically, without a model.

    Args:
        pass_s: Seconds that each pass takes.
        max_tokens: Padded tokens in one pass at most; a character counts as a token.
    """

    def __init__(
        self, *, name: str = "fake", template: str = "{}", pass_s: float = 0.0, max_tokens: int = 4096
    ) -> None:
        self._pass_s = pass_s
        self._max_tokens = max_tokens
        self._info = ModelInfo(
            name=name,
            fingerprint="0" * 64,
            revision="fake",
            family="nli",
            precision="none",
            device="none",
            max_length=512,
            template=template,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        tokens = [min(len(pair.text) + len(pair.hypothesis) + SPECIALS, self._info.max_length) for pair in pairs]
        passes = plan(tokens, max_tokens=self._max_tokens)
        if self._pass_s:
            time.sleep(self._pass_s * len(passes))
        return Entailment(
            logits=_logits(pairs),
            tokens=tokens,
            padded_tokens=sum(len(indices) * max(tokens[index] for index in indices) for indices in passes),
            device_ms=self._pass_s * len(passes) * 1000,
        )

    def close(self) -> None:
        """There is nothing to give back."""


def fake_logit(pair: Pair) -> Logit:
    """Two values in [-4, 4), exact in float32."""
    return _logits([pair])[0]


def _logits(pairs: Sequence[Pair]) -> list[Logit]:
    hypotheses = {pair.hypothesis: pair.hypothesis.encode("utf-8", "surrogatepass") for pair in pairs}
    sums = {pair.text: zlib.crc32(pair.text.encode("utf-8", "surrogatepass")) for pair in pairs}
    checksums = (zlib.crc32(hypotheses[pair.hypothesis], sums[pair.text]) for pair in pairs)
    return [Logit((checksum >> 16) / 8192 - 4, (checksum & 0xFFFF) / 8192 - 4) for checksum in checksums]
