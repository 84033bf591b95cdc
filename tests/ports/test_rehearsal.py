"""A rehearsal reads all rows, has a sample answered, and says which documents would get other tags."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.database import Database
from ledger.tags import TagRow
from producers.backfill.job import JobFile
from producers.backfill.pace import Limits
from producers.backfill.question import Question
from producers.backfill.rehearsal import Rehearsal, rehearse
from producers.backfill.rows import Row
from producers.backfill.runner import Plan, Runner, Sizes, Source
from tagging.settings import IntakeSettings
from tests.answers import stored
from tests.ports.test_backfill_runner import LABELS, Desk

PLAN = Plan(
    question=Question(labels=LABELS, serves="demo"),
    into_ledger=True,
    source="zendesk",
    sizes=Sizes(window=4, items=2, chars=1000, text_chars=50),
    limits=Limits(in_flight=2, live_waiting_high=10, live_waiting_low=1, live_age_s=60.0),
    patience_s=0.0,
)


class Tickets:
    """A source whose rows have references."""

    name = "tickets"

    def __init__(self, *texts: str) -> None:
        self.rows = [
            Row(number=n, columns={}, text=text, ref=f"T-{n}", source="zendesk")
            for n, text in enumerate(texts, start=1)
        ]

    def records(self, *, after: int = 0):
        return iter(self.rows[after:])


@pytest.fixture
def desk(sqlite_database: Database, tmp_path: Path):
    made = Desk(sqlite_database, tmp_path)
    with closing(made.job):
        yield made


def rehearsed(desk: Desk, source: Source, *, size: int = 100) -> Rehearsal:
    def runner(job: JobFile, sample: Source, plan: Plan) -> Runner:
        return Runner(
            job=job,
            source=sample,
            plan=plan,
            intake=desk.intake,
            tags=desk.tags,
            broker=desk.worker,
            settings=IntakeSettings(),
            pause=lambda _: desk.worker.answer(),
        )

    return rehearse(source, PLAN, size=size, tags=desk.tags, runner=runner)


def stand(desk: Desk, ref: str, *, tagged: bool) -> None:
    """Let an answer to the plan's question stand for this ticket."""
    one = TagRow.of(stored(ref, revision=0, labels=LABELS).answer)
    desk.tags.write({ref: [one if tagged else replace(one, answer={**one.answer, "tags": []})]})


def test_scales_what_a_sample_cost_to_all_rows(desk: Desk) -> None:
    told = rehearsed(desk, Tickets(*(f"text {n}" for n in range(40))), size=10)
    # 7 tokens a text.
    assert (told.rows, told.sampled, told.pairs, told.tokens) == (40, 10, 80, 280)


def test_counts_what_fails_in_the_sample(desk: Desk) -> None:
    told = rehearsed(desk, Tickets("fine", "bad"))
    assert (told.sampled, told.failed, told.rejected) == (2, 1, 0)


def test_rejects_what_a_backfill_rejects_and_does_not_ask_about_it(desk: Desk) -> None:
    texts = ("fine", "", " \n", "x" * 51, "fine too")
    told = rehearsed(desk, Tickets(*texts))
    desk.source = Tickets(*texts)
    assert desk.restarted().run() == "done"
    assert (told.rows, told.rejected) == (desk.job.counts().read, desk.job.counts().rejected) == (5, 3)
    assert (told.sampled, told.failed, told.pairs) == (2, 0, 4)


def test_says_for_how_many_documents_the_tags_would_change(desk: Desk) -> None:
    # The worker abstains on every text.
    stand(desk, "T-1", tagged=True)
    stand(desk, "T-2", tagged=False)
    told = rehearsed(desk, Tickets("a", "b", "c"))
    assert (told.standing, told.changed) == (2, 1)
    assert (told.gained, told.lost) == ({}, {LABELS[0]: 1})


def test_says_it_in_lines_with_what_changes_behind_each_label() -> None:
    told = Rehearsal(
        rows=1, rejected=0, sampled=1, failed=0, pairs=3, tokens=9_000, minutes=61.5, labels={"物流": 1_000},
        standing=1, changed=1, gained={"物流": 2}, lost={"退款": 1},
    )  # fmt: skip
    assert told.lines() == [
        "1 row, 0 of them rejected",
        "at most 3 pairs, 9,000 tokens, 1h 01m",
        "1 sampled, 0 of them failed; 1 have tags for this question, 1 of these would get others",
        "    1,000  物流  +2",
        "        0  退款  -1",
    ]
    assert replace(told, tokens=None, minutes=None).lines()[1] == "at most 3 pairs, the sample is known already"


def test_writes_no_documents_tags(desk: Desk) -> None:
    stand(desk, "T-1", tagged=True)
    before = desk.tags.by_ref("T-1")
    rehearsed(desk, Tickets("a", "b"))
    assert desk.tags.by_ref("T-1") == before
    assert all(item["source"] == "backfill" for message in desk.messages() for item in message["items"])


def test_of_the_same_source_it_takes_the_same_sample(desk: Desk) -> None:
    source = Tickets(*(f"text {n}" for n in range(40)))
    asked = []
    for _ in range(2):
        del desk.worker.sent[:]
        rehearsed(desk, source, size=5)
        asked.append(sorted(item["text"] for message in desk.messages() for item in message["items"]))
    assert asked[0] == asked[1]
    assert len(asked[0]) == 5
