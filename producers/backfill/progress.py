"""How far a run is: counted while it runs, so that who watches it never has to look through the job file."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from producers.backfill.job import Settled, Window
from producers.backfill.pace import WINDOW_IS_FULL
from producers.backfill.sources.extent import Extent

_RECENT_S: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a run has done so far, in rows and questions; what earlier runs of its job did is ``before``."""

    labels: int = 0
    """That every text is asked about."""
    before: int = 0
    """Rows that earlier runs have read."""
    read: int = 0
    rejected: int = 0
    """Of the rows."""
    questions: int = 0
    """That were met for the first time,"""
    known: int = 0
    """and those of them that the ledger could answer."""
    sent: int = 0
    """Questions, as are ``answered`` ones, and those of them that ``failed``."""
    answered: int = 0
    failed: int = 0
    pairs: int = 0
    """That workers answered,"""
    computed: int = 0
    """and those of them that a model computed: caches knew the others."""
    is_read: bool = False
    """Whether the source has no more."""
    in_flight: int = 0
    live_waiting: int = 0
    live_age_s: float = 0.0
    waits_for: str = ""
    began: float = field(default_factory=time.monotonic)
    waiting_rows: dict[int, int] = field(default_factory=dict)
    """Rows of the job that wait for the answers of a chunk, by its number."""

    @property
    def elapsed_s(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.began

    @property
    def rows(self) -> int:
        """Rows of the job that were read."""
        return self.before + self.read

    @property
    def done(self) -> int:
        """Those of them that wait for nothing any more."""
        return self.rows - sum(self.waiting_rows.values())

    def was_read(self, window: Window, waiting_rows: Mapping[int, int]) -> None:
        """A window was read, and so many of its rows wait for these chunks."""
        self.read += len(window.rows) + len(window.rejected)
        self.rejected += len(window.rejected)
        self.known += len(window.known)
        self.questions += len(window.known) + sum(map(len, window.chunks))
        self.is_read = window.last
        for chunk, rows in waiting_rows.items():
            self.waiting_rows[chunk] = self.waiting_rows.get(chunk, 0) + rows

    def was_settled(self, chunk: int, settled: Sequence[Settled]) -> None:
        """The items of this chunk have their answers, or reasons why not."""
        tagged = [one for one in settled if one.outcome == "tagged"]
        self.answered += len(settled)
        self.failed += len(settled) - len(tagged)
        self.pairs += len(tagged) * self.labels
        self.computed += sum(one.computed for one in tagged)
        self.waiting_rows.pop(chunk, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is shown of a run at one moment; None where nothing is known yet. Shares are from 0 to 1, of this run."""

    elapsed_s: float
    done: int
    total: int | None
    is_estimated: bool
    """``total`` is reckoned from how much of the source's bytes were read."""
    rows_per_s: float
    pairs_per_s: float
    left_s: float | None
    pairs: int
    repeated: float | None
    """Of the rows: their text was met before."""
    known: float | None
    """Of the questions: the ledger could answer."""
    cached: float | None
    """Of the pairs that workers answered: their caches knew."""
    rejected: int
    """Rows."""
    failed: int
    """Questions."""
    in_flight: int
    live_waiting: int
    live_age_s: float
    waits_for: str
    """Why nothing is sent; empty while all goes on."""

    @property
    def share(self) -> float | None:
        """Of the work that is done."""
        return None if self.total is None else min(1.0, self.done / self.total) if self.total else 1.0


class Speedometer:
    """Makes figures of progress, with the speed of the last half minute. Time is an argument."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def figures(self, progress: Progress, extent: Extent, *, now: float) -> Figures:
        """The figures at this moment of ``time.monotonic``.

        Args:
            progress: Of the run.
            extent: Of the source, as far as it was read.
            now: Not before the last one.
        """
        rows_per_s, pairs_per_s = self._speed(progress, now)
        total, is_estimated = _total(progress, extent)
        left = None if total is None else max(0, total - progress.done)
        asked = progress.read - progress.rejected
        return Figures(
            elapsed_s=now - progress.began,
            done=progress.done,
            total=total,
            is_estimated=is_estimated,
            rows_per_s=rows_per_s,
            pairs_per_s=pairs_per_s,
            left_s=left / rows_per_s if left is not None and rows_per_s > 0 else None,
            pairs=progress.pairs,
            repeated=_share(asked - progress.questions, asked),
            known=_share(progress.known, progress.questions),
            cached=_share(progress.pairs - progress.computed, progress.pairs),
            rejected=progress.rejected,
            failed=progress.failed,
            in_flight=progress.in_flight,
            live_waiting=progress.live_waiting,
            live_age_s=progress.live_age_s,
            waits_for="" if progress.waits_for == WINDOW_IS_FULL else progress.waits_for,
        )

    def _speed(self, progress: Progress, now: float) -> tuple[float, float]:
        self._seen.append((now, progress.done, progress.pairs))
        while now - self._seen[0][0] > _RECENT_S:
            self._seen.popleft()
        then, done, pairs = self._seen[0]
        if now <= then:
            return 0.0, 0.0
        return (progress.done - done) / (now - then), (progress.pairs - pairs) / (now - then)


def _total(progress: Progress, extent: Extent) -> tuple[int | None, bool]:
    """How many rows the job comes to, and whether that is an estimate."""
    if progress.is_read:
        return progress.rows, False
    if extent.rows is not None:
        return max(extent.rows, progress.rows), False
    if extent.share and progress.rows:
        return round(progress.rows / extent.share), True
    return None, False


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 else None
