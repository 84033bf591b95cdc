"""Messages for a Pipeline, and the steps that a pool takes with them."""

from collections.abc import Sequence
from typing import Any

from tagging.labels import LabelBook
from tagging.messages import Decoder
from tagging.names import TAG_MANY, TAG_TICKET
from workers.engines.fake import FakeEngine
from workers.pipeline import Pipeline
from workers.ports import Engine, Entailment, Pair
from workers.recall import Recall
from workers.stores.memory import MemoryCrashes, MemoryDeadLetters, MemoryMeter, MemoryTagStore
from workers.verdicts import Tagged, Verdict
from workers.work import Delivery

LABELS = ["billing", "login"]


class CountingEngine(FakeEngine):
    """Remembers each pass and the pairs in it."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[list[Pair]] = []
        self.tokens = 0

    def entail(self, pairs: Sequence[Pair]) -> Entailment:
        entailment = super().entail(pairs)
        self.passes.append(list(pairs))
        self.tokens += sum(entailment.tokens)
        return entailment

    @property
    def asked(self) -> list[Pair]:
        return [pair for pairs in self.passes for pair in pairs]


def pipeline(engine: Engine, recall: Recall, **options: Any) -> Pipeline:
    """A pipeline over stores in memory, for labels that come with the message."""
    memory = {
        "store": MemoryTagStore(),
        "dead_letters": MemoryDeadLetters(),
        "crashes": MemoryCrashes(),
        "meter": MemoryMeter(),
        "max_attempts": 3,
    }
    decoder = Decoder(book=LabelBook(), model="fake", default_template="{}")
    return Pipeline(engine=engine, decoder=decoder, recall=recall, **{**memory, **options})


def run(through: Pipeline, *deliveries: Delivery) -> list[Verdict]:
    """Verdicts for a batch, as a pool gets them."""
    work = through.prepare(deliveries)
    if work.needs_device:
        through.infer(work)
    through.exchange(work)
    if work.needs_device:
        through.infer(work)
    return through.record(work)


def message(text: str, *, id_: str | None = None, attempts: int = 0, task: str = TAG_TICKET, **fields: Any) -> Delivery:
    """One text with two labels, unless ``fields`` say otherwise."""
    return raw({"text": text, "labels": LABELS, **fields}, id_=id_ or text, attempts=attempts, task=task)


def raw(body: object, *, id_: str = "1", attempts: int = 0, task: str = TAG_TICKET) -> Delivery:
    """Whatever somebody sent."""
    return Delivery(id=id_, task=task, queue="q", args=[body], kwargs={}, attempts=attempts, queued_ms=1.0)


def many(*texts: str, attempts: int = 0) -> Delivery:
    """One message with several texts."""
    body = {"labels": LABELS, "items": [{"text": text} for text in texts]}
    return raw(body, id_="m", attempts=attempts, task=TAG_MANY)


def tagged(verdict: Verdict) -> Any:
    """The answer."""
    assert isinstance(verdict, Tagged), verdict
    return verdict.result
