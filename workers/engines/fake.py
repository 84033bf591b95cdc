"""An engine that costs nothing: logits are drawn from a checksum of the pair, so equal pairs score equally anywhere.

``fake_engine`` makes one from a model's name, for tests of the whole worker and for rehearsing what goes wrong:

    fake                       answers at once
    fake:pass_s=0.5            takes half a second for each pass
    fake:grow_mb=5             takes and keeps five megabytes for each pass
    fake:failing=1             does what a text orders: see ``FailingEngine``
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import time
import zlib
from collections import Counter
from collections.abc import Sequence

from tagging.errors import DeviceOutOfMemory, EngineError, ModelRefused
from workers.engines.passes import plan
from workers.engines.windows import starts
from workers.ports import Engine, Entailment, Logit, ModelInfo, Pair, Reading

SPECIALS = 3
_PREFIX = "fake"
_ORDER = re.compile(r"!(fail|oom|nan|exit|kill|sleep)(?: (\d+(?:\.\d+)?))?\b")


class FakeEngine:
    """Scores any pair, deterministically, without a model.

    Args:
        pass_s: Seconds that each pass takes.
        max_tokens: Padded tokens in one pass at most; a character counts as a token.
        grow_mb: Megabytes that each pass takes and never gives back.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        template: str = "{}",
        pass_s: float = 0.0,
        max_tokens: int = 4096,
        grow_mb: float = 0.0,
    ) -> None:
        self._pass_s = pass_s
        self._grow_mb = grow_mb
        self._kept: list[bytes] = []
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
        if self._grow_mb:
            self._kept += [b"x" * int(self._grow_mb * 2**20) for _ in passes]
        return Entailment(
            logits=_logits(pairs),
            tokens=tokens,
            padded_tokens=sum(len(indices) * max(tokens[index] for index in indices) for indices in passes),
            device_ms=self._pass_s * len(passes) * 1000,
            readings=[_reading(pair, self._info.max_length) for pair in pairs],
        )

    def close(self) -> None:
        """There is nothing to give back."""


class FailingEngine:
    """Another engine, except that a text's beginning may order a failure:

    ``!fail``       the whole pass fails, each time; ``!fail 2`` the first two times only
    ``!oom``        the pass does not fit; ``!oom 2`` the first two times only
    ``!nan``        NaN for this text, its neighbours are well
    ``!exit``       the engine's process ends at once
    ``!kill``       the worker's process ends at once, and the engine's with it
    ``!sleep 1.5``  the pass takes so many seconds more

    The times are counted by text, in this process.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ordered: Counter[str] = Counter()

    @property
    def info(self) -> ModelInfo:
        return self._engine.info

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        answer = self._engine.entail(pairs)
        orders = {text: order for text in dict.fromkeys(pair.text for pair in pairs) if (order := self._order(text))}
        match set(orders.values()):
            case found if "kill" in found:
                parent = multiprocessing.parent_process()
                os.kill(os.getpid() if parent is None or parent.pid is None else parent.pid, signal.SIGKILL)
                os._exit(1)
            case found if "exit" in found:
                os._exit(1)
            case found if "oom" in found:
                raise DeviceOutOfMemory("the pass did not fit, as ordered")
            case found if "fail" in found:
                raise EngineError("the pass failed, as ordered")
        logits = [
            Logit(math.nan, math.nan) if pair.text in orders else logit
            for pair, logit in zip(pairs, answer.logits, strict=True)
        ]
        return Entailment(
            logits=logits,
            tokens=answer.tokens,
            padded_tokens=answer.padded_tokens,
            device_ms=answer.device_ms,
            readings=answer.readings,
        )

    def close(self) -> None:
        self._engine.close()

    def _order(self, text: str) -> str | None:
        """What the text orders now; counted."""
        match = _ORDER.match(text)
        if match is None:
            return None
        order, times = match.groups()
        if order == "sleep":
            time.sleep(float(times or 1))
            return None
        self._ordered[text] += 1
        return order if times is None or self._ordered[text] <= float(times) else None


def _reading(pair: Pair, max_length: int) -> Reading:
    """As an engine would read it to which a character is a token."""
    room = max_length - len(pair.hypothesis) - SPECIALS
    if len(pair.text) <= room or pair.long_text.rule == "truncate":
        return Reading(windows=1, truncated=len(pair.text) > room)
    return Reading(windows=len(starts(len(pair.text), room=room, overlap=pair.long_text.overlap)), truncated=False)


def is_fake(model: str) -> bool:
    """Whether this model's name asks for a fake."""
    return model.partition(":")[0] == _PREFIX


def fake_engine(model: str) -> Engine:
    """The engine that a name such as ``fake:pass_s=0.5,failing=1`` asks for.

    Raises:
        ModelRefused: The name asks for something else.
    """
    words = [word.partition("=") for word in model.partition(":")[2].split(",") if word]
    try:
        options = {name: float(value) for name, _, value in words}
    except ValueError:
        options = {"": 0.0}
    if options.keys() - {"pass_s", "grow_mb", "failing"}:
        raise ModelRefused(
            f"{model!r}: expected fake, fake:pass_s=SECONDS, fake:grow_mb=MEGABYTES, fake:failing=1, or more of it"
        )
    engine = FakeEngine(pass_s=options.get("pass_s", 0.0), grow_mb=options.get("grow_mb", 0.0))
    return FailingEngine(engine) if options.get("failing") else engine


def fake_logit(pair: Pair) -> Logit:
    """Two values in [-4, 4), exact in float32."""
    return _logits([pair])[0]


def _logits(pairs: Sequence[Pair]) -> list[Logit]:
    sums = {side: zlib.crc32(side.encode("utf-8", "surrogatepass")) for pair in pairs for side in pair[:2]}
    mixed = (_mix(sums[pair.text], sums[pair.hypothesis]) for pair in pairs)
    return [Logit((checksum >> 16) / 8192 - 4, (checksum & 0xFFFF) / 8192 - 4) for checksum in mixed]


def _mix(text: int, hypothesis: int) -> int:
    """32 bits that depend on every bit of both, in either order differently."""
    return ((text ^ (hypothesis * 0x9E3779B1 & 0xFFFFFFFF)) * 0x85EBCA6B & 0xFFFFFFFF) ^ text >> 13
