"""A job file keeps every step whole, and knows what it is about."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from producers.backfill.job import JobFile, Settled, Window, names_in
from producers.backfill.question import Item
from producers.backfill.rows import Rejected, Row
from tagging.errors import JobRefused

ANSWER = {"decision": "apply", "tags": [{"label": "billing", "score": 0.9, "decision": "apply"}]}
TAGGED = Settled(outcome="tagged", answer=ANSWER)


@pytest.fixture
def job(tmp_path: Path):
    with closing(JobFile.create(tmp_path, "t")) as opened:
        yield opened


def item(id_: str) -> Item:
    return Item(id=id_, text=f"text {id_}", source="s", ref=id_, revision=0, kind="ticket")


def row(number: int, columns: dict | None = None) -> Row:
    return Row(number=number, columns=columns or {"n": number}, text="t")


def window(*ids: str, first: int = 1, **fields) -> Window:
    """Rows with items of these ids, in one chunk; a repeated id is a row more."""
    rows = [(row(number), id_) for number, id_ in enumerate(ids, start=first)]
    empty = Window(
        rows=rows, rejected=[], known={}, chunks=[[item(id_) for id_ in dict.fromkeys(ids)]], before={}, last=False
    )
    return replace(empty, **fields)


def test_rows_that_share_an_item_get_its_answer_in_the_order_of_the_source(job):
    job.add(window("b", "a", "b", last=True))
    [chunk] = job.chunks("ready")
    job.sent([chunk])
    assert not job.is_done
    job.settle(chunk, [TAGGED, Settled(outcome="failed", reason="no")])
    assert job.is_done
    assert [columns["n"] for columns, _ in job.answered()] == [1, 3]
    assert [(one.number, one.reason) for one in job.refused()] == [(2, "no")]


def test_a_window_that_fails_leaves_nothing_behind(job):
    broken = window("a", rejected=[Rejected(number=1, reason="the number of a row")])
    with pytest.raises(Exception, match="UNIQUE"):
        job.add(broken)
    assert (job.cursor, job.counts().read, job.chunks("ready")) == (0, 0, [])


def test_its_cursor_is_the_last_record_that_was_read_rejected_ones_too(job):
    job.add(window("a", "b", rejected=[Rejected(number=7, reason="r")]))
    assert job.cursor == 7


def test_knows_which_items_it_has(job):
    job.add(window("a", "b"))
    assert job.unknown(["a", "b", "c"]) == {"c"}


def test_an_item_of_an_earlier_window_answers_rows_of_a_later_one(job):
    job.add(window("a"))
    job.settle(job.chunks("ready")[0], [TAGGED])
    job.add(window("a", first=2, chunks=[], last=True))
    assert (job.is_done, job.counts().tagged, job.counts().items) == (True, 2, 1)


def test_a_chunk_has_the_same_message_id_after_a_restart_and_another_when_sent_again(job, tmp_path):
    job.add(window("a"))
    [chunk] = job.chunks("ready")
    with closing(JobFile.open(tmp_path, "t")) as restarted:
        assert restarted.chunks("ready") == [chunk]
    job.sent([chunk])
    job.send_again(chunk)
    [again] = job.chunks("ready")
    assert (again.attempt, again.message_id != chunk.message_id) == (1, True)


def test_two_jobs_over_the_same_rows_send_different_messages(job, tmp_path):
    with closing(JobFile.create(tmp_path, "other")) as other:
        for one in (job, other):
            one.add(window("a"))
        assert job.chunks("ready")[0].message_id != other.chunks("ready")[0].message_id


def test_keeps_columns_as_they_were_bytes_that_are_no_text_too(job):
    columns = {"名": "值", "x": [1, None, 2.5], "s": "\udcff"}
    job.add(window("a", rows=[(row(1, columns), "a")]))
    job.settle(job.chunks("ready")[0], [TAGGED])
    assert [kept for kept, _ in job.answered()] == [columns]


def test_keeps_no_text_of_an_item_that_is_answered(job):
    job.add(window("a"))
    [chunk] = job.chunks("ready")
    assert job.items(chunk)[0].text == "text a"
    job.settle(chunk, [TAGGED])
    assert job.items(chunk)[0].text is None


def test_is_for_its_owner_only(job):
    assert job.path.stat().st_mode & 0o077 == 0


def test_a_job_is_about_one_thing(job):
    job.describe({"source": "a", "out": "x"})
    job.describe({"source": "a", "out": "x"})
    with pytest.raises(JobRefused, match="begun with another out"):
        job.describe({"source": "a", "out": "y"})


def test_is_run_by_one_at_a_time(job, tmp_path):
    with closing(JobFile.open(tmp_path, "t")) as other:
        with job.locked(), pytest.raises(JobRefused, match="another process"), other.locked():
            pass
        with other.locked():
            pass


def test_others_say_what_they_wish(job, tmp_path):
    with closing(JobFile.open(tmp_path, "t")) as other:
        other.state("wish", "pause")
    assert job.wish == "pause"


def test_a_job_that_is_not_there_is_refused_with_those_that_are(job, tmp_path):
    with pytest.raises(JobRefused, match="there are: t"):
        JobFile.open(tmp_path, "nobody")
    assert names_in(tmp_path) == ["t"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_a_name_that_is_no_files_is_refused(tmp_path, name):
    with pytest.raises(JobRefused, match="cannot be the name of a file"):
        JobFile.create(tmp_path, name)
