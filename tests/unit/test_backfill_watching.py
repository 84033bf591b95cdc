"""A backfill is watched on a terminal of any width, and in a log, without a line too many."""

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from producers.backfill.progress import Figures, Progress
from producers.backfill.sources.extent import Extent
from tagging.wording import counted, duration
from tagmill.watching import line, picture, watching

FIGURES = Figures(
    elapsed_s=62.0,
    done=124_000,
    total=200_000,
    is_estimated=True,
    rows_per_s=1_240.3,
    pairs_per_s=3_020.0,
    left_s=61.3,
    pairs=372_000,
    repeated=0.219,
    known=0.03,
    cached=0.999,
    rejected=2,
    failed=1,
    in_flight=4,
    live_waiting=3,
    live_age_s=0.44,
    waits_for="live traffic is behind",
)
BEGINNING = replace(
    FIGURES, total=None, left_s=None, repeated=None, known=None, cached=None, waits_for="", done=0, in_flight=1
)
HUGE = replace(FIGURES, done=19_999_999, total=20_000_000, rows_per_s=99_999.0, pairs=2_000_000_000, left_s=359_999.0)


def drawn(job: str, figures: Figures, columns: int) -> list[str]:
    console = Console(width=columns, record=True, file=io.StringIO(), force_terminal=True)
    console.print(picture(job, figures, columns=columns))
    return console.export_text().splitlines()


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("job", ["shop", "工单导出二〇二六年十一月二十五日全量备份文件-售后分类", "[bold]x[/]" * 20])
@pytest.mark.parametrize("figures", [BEGINNING, FIGURES, HUGE])
def test_no_line_is_wider_than_the_terminal_and_none_wraps(columns: int, job: str, figures: Figures) -> None:
    lines = drawn(job, figures, columns)
    assert len(lines) == 5
    assert max(map(cell_len, lines)) <= min(columns, 100)


def test_on_eighty_columns_nothing_is_left_out() -> None:
    text = "\n".join(drawn("工单-shop", HUGE, 80))
    for said in (
        "工单-shop", "99 %", "99h 59m left", "19,999,999 of about 20,000,000", "99,999/s", "same text 21 %",
        "ledger 3 %", "2,000,000,000", "3,020/s", "from caches 99 %", "3 waiting, oldest 0.4 s", "2 rejected",
        "1 failed", "4 messages in flight", "waits: live traffic is behind",
    ):  # fmt: skip
        assert said in text


def test_at_the_beginning_it_says_how_long_it_took_so_far_and_nothing_that_it_does_not_know() -> None:
    text = "\n".join(drawn("shop", BEGINNING, 80))
    assert "1m 02s so far" in text
    assert "1 message in flight" in text
    assert "–" in text
    assert "waits" not in text


def test_a_line_of_a_log_has_the_same_figures() -> None:
    said = line("shop", FIGURES)
    assert "62 % done, 124,000 of about 200,000 rows at 1,240/s, 3,020 pairs/s, 1m 01s left" in said
    assert said.endswith("live 3 waiting, oldest 0.4 s; waits: live traffic is behind")


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def said_in(seconds: int, *, rows_per_s: int, total: int | None) -> list[str]:
    """What is printed where there is no terminal, by a run that is looked at 10 times a second."""
    out, progress = io.StringIO(), Progress(labels=1)
    clock = Clock(progress.began)
    with watching("shop", lambda: Extent(rows=total), console=Console(file=out, width=80), clock=clock) as watch:
        for tick in range(seconds * 10):
            clock.now = progress.began + tick / 10
            progress.read = tick * rows_per_s // 10
            watch(progress)
    return out.getvalue().splitlines()


def test_without_a_terminal_there_is_a_line_every_half_minute() -> None:
    lines = said_in(125, rows_per_s=10, total=None)
    assert len(lines) == 4
    assert lines[0].startswith("shop: 300 rows at 10/s")


def test_without_a_terminal_there_is_a_line_at_each_tenth_but_not_more_than_one_in_five_seconds() -> None:
    assert [text.split(" done")[0] for text in said_in(100, rows_per_s=10, total=1000)] == [
        f"shop: {tenth}0 %" for tenth in range(1, 10)
    ]
    assert len(said_in(10, rows_per_s=100, total=1000)) == 1


def test_a_short_run_says_nothing() -> None:
    assert said_in(4, rows_per_s=1000, total=4000) == []


def test_on_a_terminal_the_picture_is_gone_when_the_run_ends() -> None:
    out, progress = io.StringIO(), Progress(labels=1, read=5)
    console = Console(file=out, width=80, height=24, force_terminal=True, legacy_windows=False, _environ={})
    with watching("shop", Extent, console=console, clock=Clock(progress.began)) as watch:
        watch(progress)
    assert "so far" in out.getvalue()
    assert out.getvalue().endswith("\x1b[1A\x1b[2K"), "the lines that it drew are cleared"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1m 00s"), (3_599.4, "59m 59s"), (7_260, "2h 01m")]
)
def test_durations_have_the_two_units_that_matter(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_one_is_not_many() -> None:
    assert (counted(1, "row"), counted(0, "row"), counted(1_000, "row")) == ("1 row", "0 rows", "1,000 rows")
