"""A report's figures add up, in rows and in pairs, and it says them in a few lines, in a table and as JSON."""

import json
from contextlib import closing
from dataclasses import replace

import pytest

from producers.backfill.job import JobFile, Settled
from producers.backfill.question import Question
from producers.backfill.report import Report, WrittenBack, report_of
from producers.backfill.rows import Rejected
from tests.unit.test_backfill_job import ANSWER, item, row, window

FAILED = Settled(outcome="failed", reason="no")
CACHED = Settled(outcome="cached", answer=ANSWER)
QUESTION = Question(labels=("billing", "login", "a|b"), serves="demo")


def tagged(*, computed: int) -> Settled:
    return Settled(outcome="tagged", answer=ANSWER, computed=computed, cache="pairs", tokens=7)


@pytest.fixture
def job(tmp_path):
    """Two rows of one text, one that fails, one that stood in the ledger, one rejected and one that waits."""
    with closing(JobFile.create(tmp_path, "t")) as opened:
        opened.state("question", QUESTION.to_json())
        rows = [*window("a", "a", "f").rows, (row(4), "k")]
        opened.add(window("a", "a", "f", known={"k": (item("k"), CACHED)}, rows=rows))
        opened.settle(opened.chunks("ready")[0], [tagged(computed=2), FAILED])
        opened.add(window("open", first=9, rejected=[Rejected(number=5, reason="r")]))
        yield opened


def report(job: JobFile, **fields) -> Report:
    return replace(report_of(job, ended="paused", seconds=61.0), **fields)


def test_rows_add_up(job):
    it = report(job)
    assert (it.tagged, it.cached, it.failed, it.rejected, it.open) == (2, 1, 1, 1, 1)
    assert it.read == 6 == it.tagged + it.cached + it.failed + it.rejected + it.open


def test_pairs_add_up(job):
    it = report(job)
    # 3 labels of each of the 5 rows that were not rejected.
    assert it.pairs_from == {"same_text": 3, "ledger": 3, "caches": 1, "computed": 2, "failed": 3, "open": 3}
    assert sum(it.pairs_from.values()) == 15
    # a, f and open were asked; k stood in the ledger.
    assert (it.questions, it.pairs, it.computed, it.tokens) == (4, 9, 2, 7)
    assert sum(it.shares.values()) == pytest.approx(1, abs=0.001)


def test_counts_rows_by_label(job):
    assert report(job).labels == {"billing": 3}


def test_its_summary_is_a_few_lines(job):
    assert report(job).summary() == [
        "t: paused after 1m 01s",
        "6 rows = 2 tagged + 1 cached + 1 rejected + 1 failed + 1 open",
        "15 pairs: same text 20 %, ledger 20 %, caches 7 %, computed 13 %, no answer 20 %, open 20 %",
        "labels: billing 3",
    ]


def test_its_summary_names_the_most_frequent_labels_only(job):
    labels = {f"label {n}": 100 - n for n in range(30)}
    [said] = [line for line in report(job, labels=labels).summary() if line.startswith("labels")]
    assert said.startswith("labels: label 0 100, label 1 99")
    assert said.endswith("label 5 95 and 24 more")


def test_of_nothing_it_has_a_summary_too(tmp_path):
    with closing(JobFile.create(tmp_path, "new")) as job:
        it = report_of(job, ended="open", seconds=None)
    assert it.summary() == ["new: open", "0 rows = 0 tagged + 0 cached + 0 rejected + 0 failed"]
    assert it.shares == {}
    assert "# Backfill new: open" in it.to_markdown()


def test_its_markdown_has_all_of_it(job):
    back = WrittenBack(ordered=3, queued=1, written=2, superseded=0, dead=0, other=0)
    text = report(job, write_back=back, labels={"a|b": 1234}).to_markdown()
    assert text.startswith(
        "# Backfill t: paused\n\nThe last run took 1m 01s.\n\n| rows |  |\n|---|---:|\n| read | 6 |\n"
    )
    assert "| the model | 2 (13.3 %) |" in text
    assert "| a cache, and the model for the rest | 1 |" in text
    assert "| written | 2 |" in text
    assert text.endswith("| label | rows |\n|---|---:|\n| a\\|b | 1,234 |\n")


def test_its_json_has_all_of_it_and_the_shares(job):
    it = report(job)
    read = json.loads(json.dumps(it.to_dict()))
    assert read["shares"]["computed"] == 0.1333
    assert (read["write_back"], read["labels"], read["seconds"]) == (None, {"billing": 3}, 61.0)


def test_is_done_only_when_every_row_has_an_answer(job):
    whole = report(job, ended="done", rejected=0, failed=0)
    codes = [one.exit_code for one in (whole, replace(whole, failed=1), replace(whole, ended="paused"))]
    assert codes == [0, 1, 1]
