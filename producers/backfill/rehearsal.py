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
from producers.backfill.rows import Record, Rejected, Row, checked
from producers.backfill.runner import Plan, Runner, Source
from tagging.documents import Document
from tagging.wording import counted, duration

_SEED: Final = 20_061  # any: the same source has the same sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Estimates scale what the sample cost to all rows: rows that share a text, and caches, make it less."""

    rows: int
    rejected: int
    """Of the rows, for the reasons for which a backfill would reject them."""
    sampled: int
    """Of the others."""
    failed: int
    """Of the sample: a worker had no answer."""
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
    """and how many of them would get others:"""
    gained: Mapping[str, int]
    """labels that they have not, and how many of them would get each,"""
    lost: Mapping[str, int]
    """and labels that they have and that they would lose."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        cost = "the sample is known already"
        if self.tokens is not None and self.minutes is not None:
            cost = f"{counted(self.tokens, 'token')}, {duration(self.minutes * 60)}"
        names = [*self.labels, *sorted((self.gained.keys() | self.lost.keys()) - self.labels.keys())]
        return [
            f"{counted(self.rows, 'row')}, {self.rejected:,} of them rejected",
            f"at most {counted(self.pairs, 'pair')}, {cost}",
            f"{self.sampled:,} sampled, {self.failed:,} of them failed; {self.standing:,} have tags for this question, "
            f"{self.changed:,} of these would get others",
            *(self._line(name) for name in names),
        ]

    def _line(self, label: str) -> str:
        """How many rows of the sample get this label; and of those that have tags, how many gain and lose it."""
        changes = ((sign, change.get(label, 0)) for sign, change in (("+", self.gained), ("-", self.lost)))
        told = "".join(f"  {sign}{count:,}" for sign, count in changes if count)
        return f"{self.labels.get(label, 0):>9,}  {label}{told}"


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
    rows, rejected, sample = _read(source, size, text_chars=plan.sizes.text_chars)
    alone = replace(plan, into_ledger=False, accounts=frozenset())
    with TemporaryDirectory(prefix="tagmill-") as folder, closing(JobFile.create(Path(folder), "sample")) as job:
        running = runner(job, _Sampled(sample), alone)
        running.run()
        answers = {columns["row"]: answer for columns, answer in job.answered()}
        counts, tokens, histogram, seconds = job.counts(), job.tokens(), job.histogram(), running.progress.elapsed_s
    standing = _standing(sample, plan, tags)
    gained, lost = _changes(standing, {n: _labels(answer) for n, answer in answers.items()})
    share = (rows - rejected) / counts.asked if counts.asked else None
    return Rehearsal(
        rows=rows,
        rejected=rejected,
        sampled=len(sample),
        failed=counts.failed,
        pairs=(rows - rejected) * len(plan.question.labels),
        tokens=None if share is None else round(tokens * share),
        minutes=None if share is None else round(seconds * share / 60, 1),
        labels=histogram,
        standing=len(standing),
        changed=sum(n in answers and labels != _labels(answers[n]) for n, labels in standing.items()),
        gained=gained,
        lost=lost,
    )


def _read(source: Source, size: int, *, text_chars: int) -> tuple[int, int, list[Row]]:
    """How many records there are, how many of them are rejected, and a fair sample of the others in their order."""
    chance = random.Random(_SEED)
    seen: Counter[bool] = Counter()
    sample: list[Row] = []
    for record in (checked(record, text_chars=text_chars) for record in source.records()):
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


def _changes(before: Mapping[int, set[str]], after: Mapping[int, set[str]]) -> tuple[dict[str, int], dict[str, int]]:
    """How many rows that have tags and got an answer gain each label, and how many lose it; most first."""
    both = before.keys() & after.keys()
    gained = Counter(label for n in both for label in after[n] - before[n])
    lost = Counter(label for n in both for label in before[n] - after[n])
    return dict(gained.most_common()), dict(lost.most_common())


def _labels(answer: Mapping[str, Any]) -> set[str]:
    return {tag["label"] for tag in answer["tags"]}
