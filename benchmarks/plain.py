"""The rival of ``benchmarks.queue``: the same work as an ordinary Celery task, one message at a time.

It reads the message, asks the same engine and answers the same JSON; no batches, no cache, no ledger.
Started as ``celery -A benchmarks.plain worker -P threads -E``.
"""

from typing import Any

from celery import Celery

from tagging.labels import LabelBook
from tagging.messages import Decoder
from tagging.names import TAG_TICKET
from tagging.settings import load
from tagging.wiring import WORKER_PATIENCE_S, celery_settings
from workers.app import queues
from workers.engines.fake import FakeEngine
from workers.pipeline import Pipeline
from workers.recall import Recall
from workers.stores.memory import MemoryCrashes, MemoryDeadLetters, MemoryMeter, MemoryPairCache, MemoryTagStore
from workers.verdicts import Tagged
from workers.work import Delivery


class _Nothing(MemoryTagStore, MemoryDeadLetters, MemoryPairCache):
    """Stores that keep nothing and cost nothing."""

    def __init__(self) -> None:
        """Keep nothing."""

    def write(self, rows: Any, *, done: Any = ()) -> Any:  # noqa: ARG002  # the port's signature
        """Forget the rows."""
        return frozenset()

    def park(self, letters: Any) -> None:
        """Forget the letters."""

    def get_many(self, wanted: Any) -> Any:  # noqa: ARG002  # the port's signature
        """Know nothing."""
        return {}

    def put_many(self, pairs: Any) -> None:
        """Forget the pairs."""


_settings = load().settings
_engine = FakeEngine()
_nothing = _Nothing()
_meter = MemoryMeter()
_pipeline = Pipeline(
    engine=_engine,
    decoder=Decoder(book=LabelBook(), model=_engine.info.name, default_template="{}"),
    recall=Recall(local=_nothing, meter=_meter),
    store=_nothing,
    dead_letters=_nothing,
    crashes=MemoryCrashes(),
    max_attempts=1,
    meter=_meter,
)

app = Celery("plain", set_as_current=False)
app.conf.update(
    {
        **celery_settings(_settings, patience_s=WORKER_PATIENCE_S),
        "result_backend": _settings.results.url,
        "task_queues": queues(_settings),
        "task_acks_late": True,
        "worker_send_task_events": True,
    }
)


@app.task(bind=True, name=TAG_TICKET)  # type: ignore[untyped-decorator]  # celery ships no types
def tag_ticket(self: Any, message: dict[str, Any]) -> Any:
    """One text, scored by itself."""
    delivery = Delivery(
        id=self.request.id, task=TAG_TICKET, queue="", args=[message], kwargs={}, attempts=0, queued_ms=0.0
    )
    work = _pipeline.prepare([delivery])
    _pipeline.infer(work)
    match _pipeline.record(work):
        case [Tagged(result=result)]:
            return result
        case verdicts:
            raise RuntimeError(f"unexpected {verdicts}")
