"""What is known about the pairs of a batch before the device is asked, and how it gets there.

In this order, each for what the one before left open: the worker's memory; Redis, which in the same round trip says
what other workers are computing right now and notes what this one is about to (*single flight*); once the device is
ours, the worker's memory again, since the batch before may just have computed the same; and after our own pairs are
computed and shared, those that others promised, for a bounded time. What is open then is computed here.

Own pairs are shared before others' are waited for, so two workers that want each other's pairs both get them.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeVar

import structlog

from tagging.digests import hypothesis_digests, text_digest
from tagging.errors import EngineError
from tagging.long_text import TRUNCATE, LongText, name_of
from workers.metrics import SINGLE_FLIGHT_SECONDS
from workers.ports import KnownPairs, Logit, Meter, PairCache, Reading, SharedPairCache, TextKey, WantedPairs

log = structlog.get_logger()

T = TypeVar("T")
Source = Literal["computed", "local", "shared", "ledger", "batch_before", "other_worker"]
"""Who answered a pair."""

CLAIM_WAITS: Final = 4
"""A claim is good for so many waits: long enough for a batch to pass the device, short enough to outlive nobody."""
_FIRST_LOOK_S: Final = 0.005
_LATER_LOOKS_S: Final = 0.04


@dataclass(slots=True, kw_only=True, eq=False)
class Premise:
    """A text of a batch, once however many messages hold it, with all that the batch asks about it."""

    key: TextKey
    text: str
    hypotheses: Mapping[bytes, str]
    """By digest, as are all of these."""
    long_text: LongText = TRUNCATE
    logits: Mapping[bytes, Logit] = field(default_factory=dict)
    sources: Mapping[bytes, Source] = field(default_factory=dict)
    tokens: Mapping[bytes, int] = field(default_factory=dict)
    """Of the pairs that were computed for this batch, without padding."""
    readings: list[Reading] = field(default_factory=list)
    """How the device read the pairs that were computed for this batch."""
    promised: Collection[bytes] = ()
    """What another worker is computing; not asked of the device as long as it stands here."""
    unshared: Mapping[bytes, Logit] = field(default_factory=dict)
    """What was computed or remembered here, and no other worker has been told."""
    error: EngineError | None = None

    @property
    def open(self) -> list[bytes]:
        """What nobody has answered; nothing once the device has failed on this text."""
        if self.error is not None or len(self.logits) == len(self.hypotheses):
            return []
        if not self.logits:
            return list(self.hypotheses)
        return [digest for digest in self.hypotheses if digest not in self.logits]

    @property
    def for_device(self) -> list[bytes]:
        """What the device has to compute, now."""
        return [digest for digest in self.open if digest not in self.promised] if self.promised else self.open

    @property
    def awaited(self) -> list[bytes]:
        """What another worker has promised and nobody has answered."""
        return [digest for digest in self.open if digest in self.promised] if self.promised else []

    def ask(self, hypotheses: Mapping[bytes, str]) -> None:
        """Ask these of the text as well."""
        self.hypotheses = _joined(self.hypotheses, hypotheses)

    def learn(self, logits: Mapping[bytes, Logit], source: Source) -> None:
        """Take these as answered."""
        self.logits = _joined(self.logits, logits)
        self.sources = _joined(self.sources, dict.fromkeys(logits, source))

    def remember(self, logits: Mapping[bytes, Logit]) -> None:
        """Take these as answered by what was kept with earlier answers; the other workers may want them as well."""
        self.learn(logits, "ledger")
        self.unshared = _joined(self.unshared, logits)

    def compute(self, logits: Mapping[bytes, Logit], tokens: Mapping[bytes, int]) -> None:
        """Take these as answered by the device, in so many tokens each."""
        self.learn(logits, "computed")
        self.unshared = _joined(self.unshared, logits)
        self.tokens = _joined(self.tokens, tokens)


class Asked(NamedTuple):
    """What a question asks of a text of its batch."""

    premise: Premise
    digests: Collection[bytes]
    """Of its hypotheses, in their order."""
    first: Collection[bytes]
    """Those that nothing before it in the batch asked."""


class Premises:
    """The texts of one batch, each once, under their names for the caches.

    Args:
        model: Everything about the model that its logits depend on.
        pepper: Keys the digests.
    """

    def __init__(self, *, model: str, pepper: str) -> None:
        self._model = model
        self._pepper = pepper
        self._by_text: dict[tuple[str, LongText], Premise] = {}

    def ask(self, text: str, hypotheses: tuple[str, ...], long_text: LongText = TRUNCATE) -> Asked:
        """Note that the batch asks this."""
        asked = hypothesis_digests(hypotheses, pepper=self._pepper)
        premise = self._by_text.get((text, long_text))
        if premise is None:
            key = TextKey(self._model + name_of(long_text), text_digest(text, pepper=self._pepper))
            premise = Premise(key=key, text=text, hypotheses=asked, long_text=long_text)
            self._by_text[text, long_text] = premise
            return Asked(premise, asked, asked)
        first = {digest: asked[digest] for digest in asked if digest not in premise.hypotheses}
        premise.ask(first)
        return Asked(premise, asked, first)

    def __iter__(self) -> Iterator[Premise]:
        return iter(self._by_text.values())


class Recall:
    """The caches of one worker and its part in single flight. Safe to share between threads; never raises.

    Args:
        local: This worker's memory.
        shared: What all workers share; without it there is no single flight beyond this worker.
        wait_ms: How long pairs that another worker is computing are waited for; 0: they are computed here as well.
    """

    def __init__(
        self,
        *,
        local: PairCache,
        shared: SharedPairCache | None = None,
        wait_ms: int = 0,
        meter: Meter,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._local = local
        self._shared = shared
        self._wait_s = wait_ms / 1000
        self._claim_s = CLAIM_WAITS * self._wait_s
        self._claimant = secrets.token_hex(4)
        self._meter = meter
        self._clock = clock
        self._pause = pause
        self._patient_from = 0.0

    def look_up(self, premises: Sequence[Premise]) -> None:
        """Memory, then one round trip to Redis for the rest."""
        _take(premises, self._local.get_many(_open(premises)), "local")
        if self._shared is None or not (wanted := _open(premises)):
            return
        known = self._claim(premises, wanted) if self._wait_s else self._shared.get_many(wanted)
        self._local.put_many(known)
        _take(premises, known, "shared")

    def look_again(self, premises: Sequence[Premise]) -> None:
        """What the batch before has computed meanwhile. For the thread that holds the device: memory only."""
        _take(premises, self._local.get_many(_open(premises)), "batch_before")

    def keep(self, premises: Sequence[Premise]) -> None:
        """Let the next batch on the device find what was computed. For the thread that holds it: memory only."""
        self._local.put_many({premise.key: premise.unshared for premise in premises if premise.unshared})

    def share(self, premises: Sequence[Premise]) -> None:
        """Tell the other workers what they cannot know yet, once, in one round trip."""
        unshared = {premise.key: premise.unshared for premise in premises if premise.unshared}
        for premise in premises:
            premise.unshared = {}
        if self._shared is not None and unshared:
            self._shared.put_many(unshared)

    def wait_for_others(self, premises: Sequence[Premise]) -> None:
        """Let what other workers promised arrive, for a bounded time; afterwards nothing counts as promised."""
        waiting = [premise for premise in premises if premise.promised]
        if self._shared is None or not waiting:
            return
        began = self._clock()
        came = self._arrives(waiting, self._shared)
        self._meter.observe(SINGLE_FLIGHT_SECONDS, self._clock() - began, outcome="came" if came else "in_vain")
        if not came and self._shared.is_up:
            # They are dead or slower than we wait. Every claim of now is gone before anybody is waited for again.
            self._patient_from = self._clock() + self._claim_s
            log.info("single_flight.in_vain", wait_ms=round(1000 * self._wait_s), pairs=_count(_awaited(waiting)))
        for premise in waiting:
            premise.promised = ()

    def forget(self, premises: Sequence[Premise]) -> None:
        """Let neither this worker nor the others remember anything of these texts."""
        keys = {premise.key for premise in premises}
        self._local.forget(keys)
        if self._shared is not None:
            self._shared.forget(keys)

    def _claim(self, premises: Sequence[Premise], wanted: WantedPairs) -> KnownPairs:
        assert self._shared is not None
        claimed = self._shared.claim_many(
            wanted, claimant=self._claimant, lifetime_ms=max(1, round(1000 * self._claim_s))
        )
        if self._clock() >= self._patient_from:
            for premise in premises:
                premise.promised = claimed.promised.get(premise.key, ())
        return claimed.known

    def _arrives(self, waiting: Sequence[Premise], shared: SharedPairCache) -> bool:
        """Whether all that is awaited came in time; a Redis that is lost is not waited for."""
        deadline = self._clock() + self._wait_s
        pause_s = _FIRST_LOOK_S
        while awaited := _awaited(waiting):
            known = shared.get_many(awaited)
            self._local.put_many(known)
            _take(waiting, known, "other_worker")
            left_s = deadline - self._clock()
            if not shared.is_up or left_s <= 0:
                return not _awaited(waiting)
            if _awaited(waiting):
                self._pause(min(pause_s, left_s))
                pause_s = min(2 * pause_s, _LATER_LOOKS_S)
        return True


def _joined(these: Mapping[bytes, T], those: Mapping[bytes, T]) -> Mapping[bytes, T]:
    """Both; without copying where one is empty, as it is for most texts of most batches."""
    return {**these, **those} if these and those else these or those


def _open(premises: Iterable[Premise]) -> WantedPairs:
    return {premise.key: digests for premise in premises if (digests := premise.open)}


def _awaited(premises: Iterable[Premise]) -> WantedPairs:
    return {premise.key: digests for premise in premises if (digests := premise.awaited)}


def _take(premises: Iterable[Premise], known: KnownPairs, source: Source) -> None:
    if not known:
        return
    for premise in premises:
        if logits := known.get(premise.key):
            premise.learn(logits, source)


def _count(wanted: WantedPairs) -> int:
    return sum(map(len, wanted.values()))
