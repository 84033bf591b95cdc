"""What people see of a backfill while it runs: figures that stay in place on a terminal, lines anywhere else.

All of it goes to standard error; standard output is for what the command came to.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from producers.backfill.progress import Figures, Progress, Speedometer
from producers.backfill.sources.extent import Extent
from tagging.wording import counted, duration

Watch = Callable[[Progress], None]

_DRAWN_EVERY_S: Final = 0.25
_LINE_EVERY_S: Final = 30.0
_LINES_APART_S: Final = 5.0
_MAX_COLUMNS: Final = 100
_UNKNOWN: Final = "–"


@contextmanager
def watching(
    job: str, extent: Callable[[], Extent], *, console: Console | None = None, clock: Callable[[], float] | None = None
) -> Iterator[Watch]:
    """What shows the progress of the job of this name, of a source of this extent, each time it is called.

    Args:
        job: Its name.
        extent: Of its source, as it is then.
        console: In place of standard error.
        clock: In place of ``time.monotonic``.
    """
    console = console or Console(stderr=True, highlight=False)
    clock = clock or time.monotonic
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(job, extent, console, clock)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Picture(job, extent, live, clock)


class _Picture:
    """Drawn again a few times a second."""

    def __init__(self, job: str, extent: Callable[[], Extent], live: Live, clock: Callable[[], float]) -> None:
        self._job = job
        self._extent = extent
        self._live = live
        self._clock = clock
        self._speed = Speedometer()
        self._due_at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if now >= self._due_at:
            self._due_at = now + _DRAWN_EVERY_S
            figures = self._speed.figures(progress, self._extent(), now=now)
            self._live.update(picture(self._job, figures, columns=self._live.console.width), refresh=True)


class _Lines:
    """One at each tenth of the way, and one in a while whatever happens."""

    def __init__(self, job: str, extent: Callable[[], Extent], console: Console, clock: Callable[[], float]) -> None:
        self._job = job
        self._extent = extent
        self._console = console
        self._clock = clock
        self._speed = Speedometer()
        self._said_at = self._looked_at = clock()
        self._tenth = 0

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if now - self._looked_at < 1.0:
            return
        self._looked_at = now
        figures = self._speed.figures(progress, self._extent(), now=now)
        tenth = int((figures.share or 0.0) * 10)
        since_s = now - self._said_at
        if since_s >= _LINE_EVERY_S or (tenth > self._tenth and since_s >= _LINES_APART_S):
            self._said_at, self._tenth = now, tenth
            self._console.print(Text(line(self._job, figures)), soft_wrap=True)


def line(job: str, figures: Figures) -> str:
    """The figures in one line, for a log."""
    done = f"{_percent(figures.share)} done, " if figures.share is not None else ""
    left = f", {duration(figures.left_s)} left" if figures.left_s is not None else ""
    return (
        f"{job}: {done}{_rows(figures)} rows at {figures.rows_per_s:,.0f}/s, {figures.pairs_per_s:,.0f} pairs/s{left}; "
        f"same text {_percent(figures.repeated)}, ledger {_percent(figures.known)}, caches {_percent(figures.cached)}; "
        f"{figures.rejected:,} rejected, {figures.failed:,} failed; "
        f"live {figures.live_waiting:,} waiting, oldest {figures.live_age_s:.1f} s"
        + (f"; waits: {figures.waits_for}" if figures.waits_for else "")
    )


def picture(job: str, figures: Figures, *, columns: int) -> RenderableType:
    """The figures in a few lines that are never wider than the terminal, whatever the job is called."""
    width = min(columns, _MAX_COLUMNS)
    return Group(_way(job, figures, width), _table(figures, width))


def _way(job: str, figures: Figures, width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.width = width
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=width // 3)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, justify="right")
    bar = ProgressBar(
        total=1.0 if figures.share is not None else None, completed=figures.share or 0.0, pulse=figures.share is None
    )
    left = f"{duration(figures.left_s)} left" if figures.left_s is not None else f"{duration(figures.elapsed_s)} so far"
    grid.add_row(Text(job, style="bold"), bar, _percent(figures.share), left)
    return grid


def _table(figures: Figures, width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.width = width
    grid.add_column(no_wrap=True, style="dim", min_width=5)
    grid.add_column(no_wrap=True, overflow="ellipsis", min_width=26)
    grid.add_column(no_wrap=True, justify="right", min_width=9)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.add_row(
        "rows",
        _rows(figures),
        f"{figures.rows_per_s:,.0f}/s",
        f"same text {_percent(figures.repeated)}   ledger {_percent(figures.known)}",
    )
    grid.add_row(
        "pairs", f"{figures.pairs:,}", f"{figures.pairs_per_s:,.0f}/s", f"from caches {_percent(figures.cached)}"
    )
    refused = Text(
        f"{figures.rejected:,} rejected   {figures.failed:,} failed",
        style="yellow" if figures.rejected or figures.failed else "dim",
    )
    grid.add_row("live", f"{figures.live_waiting:,} waiting, oldest {figures.live_age_s:,.1f} s", "", refused)
    waits = Text(f"waits: {figures.waits_for}", style="yellow") if figures.waits_for else Text("")
    grid.add_row("bulk", f"{counted(figures.in_flight, 'message')} in flight", "", waits)
    return grid


def _rows(figures: Figures) -> str:
    if figures.total is None:
        return f"{figures.done:,}"
    return f"{figures.done:,} of {'about ' if figures.is_estimated else ''}{figures.total:,}"


def _percent(share: float | None) -> str:
    """Never 100 % before it is all of it."""
    return _UNKNOWN if share is None else f"{int(share * 100)} %"
