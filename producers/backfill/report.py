"""What a backfill came to, in figures that add up: read = tagged + cached + rejected + failed, + open until it ends."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from producers.backfill.job import JobFile

_CACHES: Final = {
    "none": "the model",
    "local": "a worker's memory",
    "shared": "the shared cache",
    "ledger": "the ledger's logits",
    "pairs": "a cache, and the model for the rest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Of a job as it stands."""

    job: str
    ended: str
    """``done``, ``paused``, ``cancelled`` or ``open``."""
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
    caches: Mapping[str, int]
    """Questions by which cache of a worker answered them, wholly or in part; ``none``: the model alone did."""
    tokens: int
    """That devices computed."""
    seconds: float
    """Of the last run."""
    labels: Mapping[str, int]
    """How many rows got each label as a tag."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def exit_code(self) -> int:
        """0 where every row has an answer."""
        return 0 if self.ended == "done" and not self.rejected and not self.failed else 1

    def to_markdown(self) -> str:
        """For people."""
        figures = ("read", "tagged", "cached", "rejected", "failed", "open", "questions", "pairs", "computed", "tokens")
        counts = "\n".join(f"| {name} | {getattr(self, name):,} |" for name in figures)
        caches = "\n".join(f"| {_CACHES.get(cache, cache)} | {count:,} |" for cache, count in self.caches.items())
        labels = "\n".join(f"| {_cell(label)} | {count:,} |" for label, count in self.labels.items())
        return (
            f"# Backfill {self.job}: {self.ended}\n\n| rows | |\n|---|---:|\n{counts}\n\n"
            f"| answered from | questions |\n|---|---:|\n{caches}\n\n"
            f"Took {self.seconds:,.1f} s.\n\n| label | rows |\n|---|---:|\n{labels}\n"
        )


def report_of(job: JobFile, *, ended: str, labels: int, seconds: float) -> Report:
    """The report of a job whose question has so many labels."""
    counts = job.counts()
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
        computed=job.computed(),
        caches=job.caches(),
        tokens=job.tokens(),
        seconds=round(seconds, 1),
        labels=job.histogram(),
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
