"""What a backfill came to, in figures that add up.

Of rows: read = tagged + cached + rejected + failed, + open until it ends. Of pairs: what each row and each label would
have cost = what nobody had to compute, for one reason or another, + what models computed, + what has no answer.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from ledger.intake import UNFINISHED, Intake, State
from producers.backfill.job import JobFile
from producers.backfill.question import Question
from tagging.wording import counted, duration

_CACHES: Final = {
    "none": "the model",
    "local": "a worker's memory",
    "shared": "the shared cache",
    "ledger": "the ledger's logits",
    "pairs": "a cache, and the model for the rest",
}
_FROM: Final = {
    "same_text": "rows with the text of another",
    "ledger": "answers that stood in the ledger",
    "caches": "workers' caches, and logits in the ledger",
    "computed": "the model",
    "failed": "no answer",
    "open": "not answered yet",
}
"""Where a row's pairs came from, in the order in which they are looked for."""
_SHORT: Final = {**{name: name for name in _FROM}, "same_text": "same text", "failed": "no answer"}
_AT_ONCE: Final = 500
_LABELS_IN_SUMMARY: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBack:
    """Answers that are to be written to the ticketing system that their document comes from, by what became of them."""

    ordered: int
    queued: int
    written: int
    """Carried out; the ticket may have had the tags already, or the account's policy left them out."""
    superseded: int
    """Another answer stands by now."""
    dead: int
    """Parked: ``tagmill dead list --task tagmill.write_back``."""
    other: int
    """Erased, or forgotten with the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Of a job as it stands."""

    job: str
    ended: str
    """``done``, ``paused``, ``cancelled``, ``undone`` or ``open``."""
    read: int
    tagged: int
    cached: int
    rejected: int
    failed: int
    open: int
    questions: int
    """Different ones among the rows that were not rejected."""
    pairs: int
    """(text, label) pairs that were asked of workers, whose caches may have known some."""
    computed: int
    """Those of them that models computed; workers' caches knew the others."""
    pairs_from: Mapping[str, int]
    """Pairs of all rows that were not rejected, each label of each row, by where they came from; adds up."""
    caches: Mapping[str, int]
    """Questions by which cache of a worker answered them, wholly or in part; ``none``: the model alone did."""
    tokens: int
    """That devices computed."""
    seconds: float | None
    """Of the last run; None while it lasts."""
    labels: Mapping[str, int]
    """How many rows got each label as a tag."""
    write_back: WrittenBack | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "shares": self.shares}

    @property
    def shares(self) -> dict[str, float]:
        """``pairs_from`` as shares of all of them."""
        total = sum(self.pairs_from.values())
        return {name: round(pairs / total, 4) for name, pairs in self.pairs_from.items()} if total else {}

    @property
    def exit_code(self) -> int:
        """0 where every row has an answer."""
        return 0 if self.ended == "done" and not self.rejected and not self.failed else 1

    def summary(self) -> list[str]:
        """For people, in a few lines."""
        took = ""
        if self.seconds is not None:
            took = f" after {duration(self.seconds)}"
        waiting = f" + {self.open:,} open" if self.open else ""
        lines = [
            f"{self.job}: {self.ended}{took}",
            f"{counted(self.read, 'row')} = {self.tagged:,} tagged + {self.cached:,} cached + "
            f"{self.rejected:,} rejected + {self.failed:,} failed{waiting}",
        ]
        if self.shares:
            said = (f"{_SHORT[name]} {share * 100:.0f} %" for name, share in self.shares.items() if share)
            lines.append(f"{counted(sum(self.pairs_from.values()), 'pair')}: {', '.join(said)}")
        if self.labels:
            most = [f"{label} {rows:,}" for label, rows in islice(self.labels.items(), _LABELS_IN_SUMMARY)]
            more = len(self.labels) - len(most)
            lines.append(f"labels: {', '.join(most)}" + (f" and {more:,} more" if more else ""))
        if (back := self.write_back) is not None:
            lines.append(
                f"write-back: {back.written:,} of {counted(back.ordered, 'order')} written, {back.queued:,} queued, "
                f"{back.dead:,} parked, {back.superseded + back.other:,} not needed"
            )
        return lines

    def to_markdown(self) -> str:
        """For people, all of it."""
        figures = ("read", "tagged", "cached", "rejected", "failed", "open", "questions", "pairs", "computed", "tokens")
        shares = self.shares
        tables = [
            _table("rows", "", {name: f"{getattr(self, name):,}" for name in figures}),
            _table(
                "pairs came from",
                "pairs",
                {_FROM[n]: f"{p:,} ({shares.get(n, 0) * 100:.1f} %)" for n, p in self.pairs_from.items()},
            ),
            _table("workers answered from", "questions", {_CACHES.get(c, c): f"{n:,}" for c, n in self.caches.items()}),
        ]
        if self.write_back is not None:
            tables.append(_table("write-back", "orders", {n: f"{v:,}" for n, v in asdict(self.write_back).items()}))
        tables.append(_table("label", "rows", {label: f"{rows:,}" for label, rows in self.labels.items()}))
        took = f"The last run took {duration(self.seconds)}.\n\n" if self.seconds is not None else ""
        return f"# Backfill {self.job}: {self.ended}\n\n{took}" + "\n".join(tables)


def report_of(job: JobFile, *, ended: str, seconds: float | None, intake: Intake | None = None) -> Report:
    """The report of a job.

    Args:
        job: Of any state.
        ended: How.
        seconds: That the last run took.
        intake: Asked what became of its write-backs; None leaves them out.
    """
    counts = job.counts()
    labels = len(Question.from_json(asked).labels) if (asked := job.fact("question")) else 0
    items = job.items_by_outcome()
    computed = job.computed()
    rows = counts.read - counts.rejected
    return Report(
        job=job.name,
        ended=ended,
        read=counts.read,
        tagged=counts.tagged,
        cached=counts.cached,
        rejected=counts.rejected,
        failed=counts.failed,
        open=counts.open,
        questions=counts.items,
        pairs=counts.asked * labels,
        computed=computed,
        pairs_from={
            "same_text": (rows - counts.items) * labels,
            "ledger": items["cached"] * labels,
            "caches": items["tagged"] * labels - computed,
            "computed": computed,
            "failed": items["failed"] * labels,
            "open": items["open"] * labels,
        },
        caches=job.caches(),
        tokens=job.tokens(),
        seconds=seconds and round(seconds, 1),
        labels=job.histogram(),
        write_back=_written_back(job, intake) if intake is not None and job.fact("write_back") == "yes" else None,
    )


def _written_back(job: JobFile, intake: Intake) -> WrittenBack:
    states: Counter[State] = Counter()
    ordered = 0
    orders = job.orders()
    while some := [order.id for order in islice(orders, _AT_ONCE)]:
        ordered += len(some)
        states.update(intake.states(some))
    queued = sum(states[state] for state in UNFINISHED)
    known = (states["done"], states["superseded"], states["dead"])
    return WrittenBack(
        ordered=ordered,
        queued=queued,
        written=states["done"],
        superseded=states["superseded"],
        dead=states["dead"],
        other=ordered - queued - sum(known),
    )


def _table(head: str, unit: str, rows: Mapping[str, str]) -> str:
    lines = "".join(f"| {_cell(name)} | {value} |\n" for name, value in rows.items())
    return f"| {head} | {unit} |\n|---|---:|\n{lines}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
