"""What a backfill would come to, from all of its rows and the answers to a sample of them.

Afterwards no document has other tags than before.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ledger.tags import TagLedger
from producers.backfill.job import JobFile
from producers.backfill.question import item_of_document
from producers.backfill.rows import Record, Rejected, Row
from producers.backfill.runner import Plan, Runner, Source
from tagging.documents import Document

_SEED: Final = 20_061  # any: the same source has the same sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Estimates scale what the sample cost to all rows: rows that share a text, and caches, make it less."""

    rows: int
    rejected: int
    """Of the rows; those that only a worker would refuse are not among them."""
    sampled: int
    failed: int
    """Of the sample."""
    pairs: int
    """(text, label) pairs of all rows, if none is known."""
    tokens: int | None
    """That devices would compute; None where the whole sample was known already."""
    minutes: float | None
    """At the speed of the sample; None where the whole sample was known already."""
    labels: Mapping[str, int]
    """How many rows of the sample got each label as a tag."""
    standing: int
    """Rows of the sample whose document has tags for this question,"""
    changed: int
    """and how many of them would get others."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        cost = "known already" if self.minutes is None else f"{self.tokens:,} tokens, {self.minutes:,.1f} minutes"
        return [
            f"{self.rows:,} rows, {self.rejected:,} of them rejected; at most {self.pairs:,} pairs, {cost}",
            f"of {self.sampled:,} sampled: {self.failed:,} failed, {self.standing:,} tagged, {self.changed:,} changed",
            *(f"  {label}  {count:,}" for label, count in self.labels.items()),
        ]


class _Sampled:
    """Some rows as a source of their own, numbered anew."""

    name = "sample"

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = [replace(row, number=number, columns={"row": number}) for number, row in enumerate(rows, start=1)]

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The rows behind this number."""
        return iter(self._rows[after:])


def rehearse(
    source: Source, plan: Plan, *, size: int, tags: TagLedger, runner: Callable[[JobFile, Source, Plan], Runner]
) -> Rehearsal:
    """Read all rows and have ``size`` of them answered, in a job that is thrown away.

    Args:
        source: Read from its beginning to its end.
        plan: As the backfill would be run.
        size: Rows of the sample; fewer if there are fewer.
        tags: Where the tags of the rows' documents stand.
        runner: Makes the runner of the sample.

    Raises:
        BrokerUnreachable, StoreUnavailable, SourceBroken: As in a backfill.
    """
    rows, rejected, sample = _read(source, size)
    alone = replace(plan, into_ledger=False, accounts=frozenset())
    with TemporaryDirectory(prefix="tagmill-") as folder, closing(JobFile.create(Path(folder), "sample")) as job:
        running = runner(job, _Sampled(sample), alone)
        running.run()
        answers = {columns["row"]: answer for columns, answer in job.answered()}
        counts, tokens, histogram, seconds = job.counts(), job.tokens(), job.histogram(), running.progress.elapsed_s
    standing = _standing(sample, plan, tags)
    share = (rows - rejected) / counts.asked if counts.asked else None
    return Rehearsal(
        rows=rows,
        rejected=rejected,
        sampled=len(sample),
        failed=counts.failed + counts.rejected,
        pairs=(rows - rejected) * len(plan.question.labels),
        tokens=None if share is None else round(tokens * share),
        minutes=None if share is None else round(seconds * share / 60, 1),
        labels=histogram,
        standing=len(standing),
        changed=sum(n in answers and labels != _labels(answers[n]) for n, labels in standing.items()),
    )


def _read(source: Source, size: int) -> tuple[int, int, list[Row]]:
    """How many records there are, how many of them are rejected, and a fair sample of the others in their order."""
    chance = random.Random(_SEED)
    seen: Counter[bool] = Counter()
    sample: list[Row] = []
    for record in source.records():
        seen[isinstance(record, Rejected)] += 1
        if isinstance(record, Rejected):
            continue
        if len(sample) < size:
            sample.append(record)
        elif (place := chance.randrange(seen[False])) < size:
            sample[place] = record
    return seen.total(), seen[True], sorted(sample, key=lambda row: row.number)


def _standing(sample: Sequence[Row], plan: Plan, tags: TagLedger) -> dict[int, set[str]]:
    """The labels that stand as tags for this question, by the place in the sample of the row of their document."""
    places = {
        Document(item.source, item.ref, item.kind): place
        for place, row in enumerate(sample, start=1)
        for item in [item_of_document(row, plan.question, source=plan.source, pepper=plan.pepper)]
    }
    return {
        places[row.document]: _labels(row.answer)
        for row in tags.standing(list(places))
        if plan.question.asks_what(row.answer) and row.document in places
    }


def _labels(answer: Mapping[str, Any]) -> set[str]:
    return {tag["label"] for tag in answer["tags"]}
