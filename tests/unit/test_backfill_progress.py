"""Progress is counted while a job runs, and becomes figures that say only what is known."""

import gzip
import random
from contextlib import closing
from pathlib import Path

import pytest

from producers.backfill.job import JobFile, Settled, Window
from producers.backfill.pace import WINDOW_IS_FULL
from producers.backfill.progress import Figures, Progress, Speedometer
from producers.backfill.question import Item
from producers.backfill.rows import Rejected, Row
from producers.backfill.sources import open_source
from producers.backfill.sources.extent import Extent

TAGGED = Settled(outcome="tagged", answer={}, computed=1)
NO = Settled(outcome="failed", reason="no")


def item(id_: str) -> Item:
    return Item(id=id_, text=id_, source="s", ref=id_, revision=0, kind="ticket")


def window(*ids: str, known: str = "", rejected: int = 0, first: int = 1) -> Window:
    """Rows with items of these ids in one chunk, those in ``known`` answered, and some rejected rows behind them."""
    rows = [(Row(number=n, columns={}, text="t"), id_) for n, id_ in enumerate(ids, start=first)]
    new = [item(id_) for id_ in dict.fromkeys(ids) if id_ not in known]
    behind = range(first + len(ids), first + len(ids) + rejected)
    return Window(
        rows=rows,
        rejected=[Rejected(number=n, reason="r") for n in behind],
        known={id_: (item(id_), Settled(outcome="cached", answer={})) for id_ in known},
        chunks=[new] if new else [],
        before={},
        last=False,
    )


def seen(progress: Progress, extent: Extent = Extent(), **fields) -> Figures:  # noqa: B008  # frozen
    return Speedometer().figures(progress, extent, now=progress.began + 10)


def test_a_row_is_done_when_its_question_is_answered_whichever_row_asked_it_first():
    progress = Progress(labels=2)
    progress.was_read(window("a", "a", "b"), {1: 3})
    assert (progress.rows, progress.done) == (3, 0)
    progress.was_settled(1, [TAGGED, NO])
    assert (progress.done, progress.answered, progress.failed) == (3, 2, 1)


def test_rows_that_nobody_is_asked_about_are_done_at_once():
    progress = Progress(labels=2)
    progress.was_read(window("a", "k", known="k", rejected=2), {1: 1})
    assert (progress.read, progress.done, progress.rejected) == (4, 3, 2)


def test_shares_are_of_rows_of_questions_and_of_pairs():
    progress = Progress(labels=2)
    progress.was_read(window("a", "a", "b", "k", known="k", rejected=1), {1: 3})
    progress.was_settled(1, [TAGGED, NO])
    figures = seen(progress)
    # Of 4 rows one repeats a text; of 3 questions the ledger knew one; of the 2 pairs of a the model computed one.
    assert (figures.repeated, figures.known, figures.cached) == (0.25, pytest.approx(1 / 3), 0.5)


def test_nothing_is_said_about_what_is_not_known_yet():
    figures = seen(Progress())
    assert (figures.total, figures.share, figures.left_s) == (None, None, None)
    assert (figures.repeated, figures.known, figures.cached) == (None, None, None)


def test_what_is_left_follows_from_the_speed_of_the_last_half_minute():
    progress, speed = Progress(labels=1), Speedometer()
    began = progress.began
    progress.read = 100
    speed.figures(progress, Extent(rows=500), now=began)
    speed.figures(progress, Extent(rows=500), now=began + 60)
    progress.read = 200
    figures = speed.figures(progress, Extent(rows=500), now=began + 80)
    assert (figures.rows_per_s, figures.left_s, figures.share) == (5.0, 60.0, 0.4)


def test_while_nothing_moves_nobody_knows_how_long_it_takes():
    progress, speed = Progress(read=100), Speedometer()
    speed.figures(progress, Extent(rows=500), now=progress.began)
    assert speed.figures(progress, Extent(rows=500), now=progress.began + 9).left_s is None


def test_a_total_is_an_estimate_until_all_is_read():
    progress = Progress(before=100, read=100)
    about = seen(progress, Extent(share=0.25))
    assert (about.total, about.is_estimated) == (800, True)
    progress.is_read = True
    exact = seen(progress, Extent(share=1.0))
    assert (exact.total, exact.is_estimated, exact.share) == (200, False, 1.0)


def test_a_window_that_is_full_is_no_reason_to_worry():
    assert seen(Progress(waits_for=WINDOW_IS_FULL)).waits_for == ""
    assert seen(Progress(waits_for="live traffic is behind")).waits_for == "live traffic is behind"


def test_a_job_file_says_which_rows_wait_for_which_chunk(tmp_path: Path):
    with closing(JobFile.create(tmp_path, "t")) as job:
        job.add(window("a", "a", "b"))
        # A row of a later window waits for the chunk of an earlier one.
        job.add(Window(**{**_fields(window("b", "c", first=10)), "chunks": [[item("c")]]}))
        assert (job.rows, job.waiting_rows()) == (5, {1: 4, 2: 1})
        assert job.waiting_rows(after=3) == {1: 1, 2: 1}
        job.settle(job.chunks("ready")[0], [TAGGED, NO])
        assert job.waiting_rows() == {2: 1}


def _fields(one: Window) -> dict:
    return {name: getattr(one, name) for name in Window.__slots__}


LINE = b'{"text": "%s"}\n'


def big(path: Path) -> Path:
    """A file of 6 MiB that gzip cannot make smaller than 4."""
    chance = random.Random(1)
    data = b"".join(LINE % chance.randbytes(512).hex().encode() for _ in range(9_000))
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_of_a_file_the_bytes_say_how_much_of_it_was_read(tmp_path, name):
    source = open_source(str(big(tmp_path / name)))
    assert source.extent() == Extent(), "one record was tried, and reading has not begun"
    records = source.records()
    for _ in range(3_000):
        next(records)
    extent = source.extent()
    assert extent.rows is None
    assert extent.share == pytest.approx(1 / 3, abs=0.05)
    list(records)
    assert source.extent().share == 1.0


def test_of_a_small_file_nothing_is_said_since_it_is_read_ahead(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(LINE % b"a" * 100)
    source = open_source(str(tmp_path / "t.jsonl"))
    next(source.records())
    assert source.extent() == Extent()


def test_a_parquet_file_says_how_many_rows_it_has(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "t.parquet")
    assert open_source(str(tmp_path / "t.parquet")).extent() == Extent(rows=3)


def test_a_table_counts_its_rows_and_a_query_does_not(tmp_path):
    import sqlite3

    with closing(sqlite3.connect(tmp_path / "t.db")) as database, database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO t (text) VALUES (?)", [("a",), ("b",)])
    url = f"sqlite:///{tmp_path / 't.db'}"
    assert open_source(url, table="t").extent() == Extent(rows=2)
    assert open_source(url, query="SELECT * FROM t", key="id").extent() == Extent()
