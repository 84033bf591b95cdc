"""Scores of (text, hypothesis) pairs: everything about it that is the same for any network and any device."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tagging.errors import DeviceOutOfMemory, EngineError
from workers.engines.network import Network
from workers.engines.passes import TokenBudget, halves, plan, size_of
from workers.engines.tokenizing import SPECIALS, Encoded, Ids, PairEncoder, pack
from workers.engines.windows import aggregate
from workers.ports import Entailment, Logit, ModelInfo, Pair, Reading

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A pair, or one window of it, on its way."""

    number: int  # of the pair in its call
    pair: Encoded
    truncated: bool


class NliEngine:
    """Scores (text, hypothesis) pairs with one network on one device. For one thread at a time.

    Args:
        encoder: Tokenises; it cuts pairs to `info.max_length`.
        network: Computes; closed with the engine.
        info: Who this model is.
        max_tokens: Tokens that one pass may cost (`Network.cost`); a single longer pair is still scored.
    """

    def __init__(self, encoder: PairEncoder, network: Network[Any], *, info: ModelInfo, max_tokens: int) -> None:
        self._info = info
        self._encoder = encoder
        self._network = network  # of Any: what a pass under way looks like is between its start and its collect
        self._budget = TokenBudget(max_tokens)
        self._tokenizer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        self._closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        """Entailment and contradiction logits of each pair.

        Equal pairs are computed once, each text and each hypothesis is tokenised once. Pairs are sorted by length and
        cut into passes within the token budget; later texts are tokenised while earlier ones are on the device. A pass
        that does not fit the device is halved. A pair longer than the model reads is truncated or read in windows, as
        itself says. Logits are float32; what is not finite was computed in float32 as well.

        Raises:
            DeviceOutOfMemory: Not even one pair fits; nothing was scored.
            EngineDied: The device is lost until the process starts anew.
            EngineError: The device failed.
        """
        if self._closed:
            raise EngineError("this engine is closed")
        if not pairs:
            return Entailment(logits=[], tokens=[], padded_tokens=0, device_ms=0.0, readings=[])
        unique = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
        call = Call(self._network, self._budget, name=self._info.device)
        with contextlib.closing(self._tokenized(list(unique))) as chunked:
            for rows in chunked:
                call.feed(rows)
        scored = call.finish()
        asked = zip(scored.windows, unique, strict=True)
        logits = [Logit(*aggregate(windows, pair.long_text.rule)) for windows, pair in asked]
        return Entailment(
            logits=[logits[unique[pair]] for pair in pairs],
            tokens=[scored.tokens[unique[pair]] for pair in pairs],
            padded_tokens=scored.computed_tokens,
            device_ms=scored.device_ms,
            readings=[scored.readings[unique[pair]] for pair in pairs],
            shrunk=scored.shrunk,
        )

    def close(self) -> None:
        """Give the device's memory back; the engine scores nothing afterwards."""
        self._closed = True
        self._tokenizer.shutdown(cancel_futures=True)
        self._network.close()

    def _tokenized(self, pairs: Sequence[Pair]) -> Generator[list[Row]]:
        """Rows of all pairs, those of long texts first; what comes next is made on a thread meanwhile."""
        hypotheses = self._encoder.hypotheses({pair.hypothesis for pair in pairs})
        first, *rest = chunks(pairs, max_tokens=self._budget.tokens)
        coming = [self._tokenizer.submit(self._rows, pairs, chunk, hypotheses) for chunk in rest]
        try:
            yield self._rows(pairs, first, hypotheses)
            for future in coming:
                yield future.result()
        finally:
            for future in coming:
                future.cancel()

    def _rows(self, pairs: Sequence[Pair], numbers: Sequence[int], hypotheses: dict[str, Ids]) -> list[Row]:
        texts = self._encoder.texts({pairs[number].text for number in numbers})
        return [
            row
            for number in numbers
            for row in self._rows_of(number, pairs[number], texts[pairs[number].text], hypotheses)
        ]

    def _rows_of(self, number: int, pair: Pair, text: Ids, hypotheses: dict[str, Ids]) -> list[Row]:
        hypothesis = hypotheses[pair.hypothesis]
        if pair.long_text.rule == "truncate" or self._encoder.fits(text, hypothesis):
            joined = self._encoder.join(text, hypothesis)
            return [Row(number, joined, truncated=joined.tokens < len(text) + len(hypothesis))]
        windows = self._encoder.windows(text, hypothesis, overlap=pair.long_text.overlap)
        return [Row(number, w, truncated=len(w.hypothesis) < len(hypothesis)) for w in windows]


def chunks(pairs: Sequence[Pair], *, max_tokens: int) -> list[list[int]]:
    """Numbers of the pairs, all those of a text together, long texts first.

    The first chunk is about one pass, so that the device starts soon; each is twice the one before. A character is
    taken for a token.
    """
    by_text: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        by_text.setdefault(pair.text, []).append(number)
    chunked: list[list[int]] = [[]]
    size, limit = 0, max_tokens
    for text in sorted(by_text, key=len, reverse=True):
        if size >= limit:
            chunked.append([])
            size, limit = 0, 2 * limit
        chunked[-1] += by_text[text]
        size += sum(len(text) + len(pairs[number].hypothesis) + SPECIALS for number in by_text[text])
    return chunked


class Scored(NamedTuple):
    """What a call computed, in the order of its pairs' numbers."""

    windows: list[list[list[float]]]  # of each pair the logits of its windows, two each
    tokens: list[int]
    readings: list[Reading]
    computed_tokens: int
    device_ms: float
    shrunk: int


class Call:
    """The passes of one call: rows go in as they are tokenised, and full passes go on the device at once."""

    def __init__(self, network: Network[Any], budget: TokenBudget, *, name: str) -> None:
        self._network = network
        self._budget = budget
        self._name = name
        self._clock = Stopwatch()
        self._waiting: list[Row] = []
        self._rows: list[Row] = []
        self._started: list[Any] = []
        self._computed_tokens = 0
        self._shrunk = 0

    def feed(self, rows: Sequence[Row]) -> None:
        """Start every pass; the last waits for the next rows if it is less than half full and the device has work."""
        *full, last = self._plan([*self._waiting, *rows])
        for rows_of_pass in full:
            self._run(rows_of_pass)
        if self._started and 2 * self._cost(last) < self._budget.tokens:
            self._waiting = last
        else:
            self._waiting = []
            self._run(last)

    def finish(self) -> Scored:
        """Start what waits, wait for the device, and put the logits where they belong."""
        for rows in self._plan(self._waiting):
            self._run(rows)
        with self._clock:
            logits = self._network.collect(self._started)
            self._mend(logits)
        if not self._shrunk:
            self._budget.recover()
        numbers = np.array([row.number for row in self._rows])
        order = np.argsort(numbers, kind="stable")
        counts = np.bincount(numbers)
        begins = np.cumsum(counts) - counts
        values = logits[order].tolist()
        lengths = np.array([row.pair.tokens for row in self._rows])[order]
        truncated = [self._rows[place].truncated for place in order[begins]]
        return Scored(
            windows=[values[begin : begin + count] for begin, count in zip(begins, counts, strict=True)],
            tokens=np.add.reduceat(lengths, begins).tolist(),
            readings=[Reading(*reading) for reading in zip(counts.tolist(), truncated, strict=True)],
            computed_tokens=self._computed_tokens,
            device_ms=self._clock.ms,
            shrunk=self._shrunk,
        )

    def _cost(self, rows: Sequence[Row]) -> int:
        return self._network.cost(size_of([row.pair.tokens for row in rows]))

    def _plan(self, rows: Sequence[Row]) -> list[list[Row]]:
        lengths = [row.pair.tokens for row in rows]
        passes = plan(lengths, max_tokens=self._budget.tokens, cost=self._network.cost)
        return [[rows[place] for place in places] for places in passes]

    def _run(self, rows: Sequence[Row]) -> None:
        """One pass, in as many parts as the device has room for."""
        todo = [list(rows)]
        while todo:
            part = todo.pop()
            cost = self._cost(part)
            if self._fits(part):
                self._rows += part
                self._computed_tokens += cost
                continue
            self._shrunk += 1
            self._budget.shrink(cost)
            log.warning("engine.shrunk max_tokens=%d failed_tokens=%d cause=OutOfMemory", self._budget.tokens, cost)
            if len(part) == 1:
                raise DeviceOutOfMemory(f"{self._name}: a single pair of {cost} tokens does not fit")
            todo += halves(part)[::-1]

    def _fits(self, rows: Sequence[Row]) -> bool:
        """Start the pass; False where the device has no room for it."""
        with self._clock, contextlib.suppress(DeviceOutOfMemory):
            self._started.append(self._network.start(pack([row.pair for row in rows])))
            return True
        return False

    def _mend(self, logits: NDArray[np.float32]) -> None:
        """Compute rows that are not finite again, each alone and in float32, where the network can."""
        places = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        for place in places:
            again = self._network.in_float32(pack([self._rows[place].pair]))
            if again is not None:
                logits[place] = again[0]
        if len(places):
            left = int((~np.isfinite(logits).all(axis=1)).sum())
            log.warning("engine.not_finite pairs=%d left=%d", len(places), left)


class Stopwatch:
    """Milliseconds spent inside it, all times together."""

    def __init__(self) -> None:
        self.ms = 0.0
        self._entered = 0.0

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.ms += (time.perf_counter() - self._entered) * 1000
