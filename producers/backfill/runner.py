"""Runs a job: reads windows of the source, sends chunks through the intake, and keeps their answers in the job file.

One thread, one step after the other, and each is kept before the next begins. Answers come back as Celery results, one
read a message in flight; the intake says what became of a message whose result never came.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, Literal, Protocol, cast

import structlog

from ledger.intake import Due, Intake, Submission
from ledger.tags import StandingTags, TagLedger, TagRow
from ledger.writebacks import Order, WriteBackLedger
from producers.backfill.job import Chunk, JobFile, Ordered, Settled, Window
from producers.backfill.pace import Limits, Load, Wait, decide, live_is_behind
from producers.backfill.progress import Progress
from producers.backfill.question import Item, Question, cut, item_of_document, item_of_text, slim
from producers.backfill.rows import Record, Rejected, Row, checked
from producers.plan import pause_s
from producers.relay import deliver
from tagging.answers import Answer
from tagging.documents import Document
from tagging.errors import BrokerUnreachable, SourceBroken, StoreUnavailable
from tagging.messages import WriteBack
from tagging.names import LIVE_QUEUES, QUEUE_BULK, TAG_MANY
from tagging.settings import IntakeSettings

log = structlog.get_logger()

Ended = Literal["done", "paused", "cancelled"]

_POLL_S: Final = 0.02
_LOOK_AT_LIVE_S: Final = 0.5
_LOOK_FOR_LOST_S: Final = 5.0
_MOMENTS: Final = ("created_at", "updated_at")
_RESULT_IS_LATE_S: Final = 10.0
"""A worker stores the result right after it has finished the message in the intake."""


class Source(Protocol):
    """Where records come from."""

    @property
    def name(self) -> str:
        """As people know it."""
        ...

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The records behind the one of this number, in order, in bounded memory."""
        ...


class Broker(Protocol):
    """What a runner asks of ``Publisher``, beside what a relay does."""

    def publishing(self, messages: Sequence[tuple[str, Mapping[str, Any], str]]) -> Iterator[str]:
        """The ids of (task, message, task id) triples, each once the broker has confirmed it."""
        ...

    def waiting(self, queue: str) -> int:
        """How many messages the queue holds."""
        ...

    def settled(self, task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The results that are there by now, by task id; ``{"error"}`` where a task failed."""
        ...

    def discard(self, task_ids: Sequence[str]) -> None:
        """Remove the results of these tasks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is done at a time."""

    window: int
    """Records that are read, deduplicated and sorted together."""
    items: int
    """In a message at most."""
    chars: int
    """Of a message at most, padded to its longest text."""
    text_chars: int
    """Of a text at most; a longer one is rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is told."""

    question: Question
    into_ledger: bool
    """Tags stand in the ledger under the rows' own references; or else answers go to a file, one question a text."""
    source: str | None
    """The system that rows come from, where they do not say."""
    sizes: Sizes
    limits: Limits
    patience_s: float
    """A broker or ledger that is away for so long ends the run; the job stays as it is."""
    pepper: str = ""
    relabel: bool = False
    """Workers look into the ledger for what earlier answers about the same documents know."""
    accounts: frozenset[str] = frozenset()
    """Tags of rows that come from one of these are written back to it."""

    def message(self, items: Sequence[Item]) -> dict[str, Any]:
        """The ``tag_many`` message about these items."""
        message = {**self.question.message(items), **({"relabel": True} if self.relabel else {})}
        for item, on_the_wire in zip(items, message["items"], strict=True):
            if item.source in self.accounts:
                on_the_wire["write_back"] = {"system": item.source}
        return message


class Runner:
    """Takes a job as far as it goes. The caller holds the job's lock."""

    def __init__(
        self,
        *,
        job: JobFile,
        source: Source,
        plan: Plan,
        intake: Intake,
        tags: TagLedger,
        broker: Broker,
        settings: IntakeSettings,
        write_backs: WriteBackLedger | None = None,
        watch: Callable[[Progress], None] = lambda _: None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._job = job
        self._plan = plan
        self._intake = intake
        self._tags = tags
        self._broker = broker
        self._write_backs = write_backs
        self._settings = settings
        self._watch = watch
        self._pause = pause
        self._records = source.records(after=job.cursor)
        self._taken: list[Record] = []
        self._broken: SourceBroken | None = None
        self.progress = Progress(
            labels=len(plan.question.labels), before=job.rows, waiting_rows=job.waiting_rows(), is_read=job.is_read
        )
        self._held = False
        self._lost = _Every(_LOOK_FOR_LOST_S)
        self._live = _Every(_LOOK_AT_LIVE_S)

    def run(self) -> Ended:
        """How it ended: ``paused`` and ``cancelled`` where somebody wished so, with nothing lost.

        Raises:
            BrokerUnreachable, StoreUnavailable: For longer than it has patience; the same command goes on.
            SourceBroken: What was read before stands; the same command goes on.
        """
        self._broker.waiting(QUEUE_BULK)  # a broker that is not there now is not waited for
        failures, lost_at = 0, 0.0
        while not self._job.is_done:
            if (wish := self._job.wish) != "run":
                return "paused" if wish == "pause" else "cancelled"
            try:
                idle_s = self.step()
                failures = 0
            except (BrokerUnreachable, StoreUnavailable) as e:
                failures += 1
                lost_at = time.monotonic() if failures == 1 else lost_at
                if time.monotonic() - lost_at > self._plan.patience_s:
                    raise
                away = "broker" if isinstance(e, BrokerUnreachable) else "ledger"
                self.progress.waits_for = f"the {away} is away"
                log.warning("backfill.waits", cause=type(e).__name__, failures=failures)
                idle_s = pause_s(failures, first_s=1.0, longest_s=30.0, share=1.0)
            self._watch(self.progress)
            if idle_s:
                self._pause(idle_s)
        return "done"

    def step(self) -> float:
        """Keep the answers that came, read and send what may be sent; how many seconds to do nothing afterwards."""
        open_ = self._job.chunks("sent")
        came = self._collect(open_)
        self.progress.in_flight = len(open_) - came
        decision = decide(self._load(), self._plan.limits, held=self._held)
        if isinstance(decision, Wait):
            self.progress.waits_for = decision.reason
            return min(decision.seconds, 1.0) or (0.0 if came else _POLL_S)
        self.progress.waits_for = ""
        ready = self._job.chunks("ready", limit=decision.messages)
        if not ready and not self._job.is_read:
            self._read()
            return 0.0
        if ready:
            self._send(ready)
        return 0.0 if ready or came else _POLL_S

    # read

    def _read(self) -> None:
        """One window, in one transaction."""
        records = self._take()
        rejected = [one for one in records if isinstance(one, Rejected)]
        rows: list[tuple[Row, str]] = []
        items: dict[str, Item] = {}
        for record in records:
            match checked(record, text_chars=self._plan.sizes.text_chars):
                case Row() as row:
                    item = self._item(row)
                    items.setdefault(item.id, item)
                    rows.append((row, item.id))
                case Rejected() as refused if isinstance(record, Row):
                    rejected.append(refused)
        new = [items[id_] for id_ in sorted(self._job.unknown(list(items)))]
        known, before = self._ask_the_ledger(new)
        known |= self._order([item for item in new if item.id in known], known)
        open_ = [item for item in new if item.id not in known]
        sizes = self._plan.sizes
        window = Window(
            rows=rows,
            rejected=rejected,
            known={item.id: (item, known[item.id]) for item in new if item.id in known},
            chunks=cut(open_, most=sizes.items, max_chars=sizes.chars),
            before=before,
            last=len(records) < sizes.window and self._broken is None,
        )
        cursor = self._job.cursor
        self._job.add(window)
        self._taken = []
        self.progress.was_read(window, self._job.waiting_rows(after=cursor))

    def _take(self) -> list[Record]:
        """The records of the next window; or those of the last one, where the ledger was away and they were not kept.

        Raises:
            SourceBroken: Nothing more can be read; what could be was taken before.
        """
        if self._taken:
            return self._taken
        if self._broken is not None:
            raise self._broken
        try:
            for record in islice(self._records, self._plan.sizes.window):
                self._taken.append(record)  # one by one: what came before a break counts
        except SourceBroken as e:
            if not self._taken:
                raise
            self._broken = e
        return self._taken

    def _item(self, row: Row) -> Item:
        plan = self._plan
        if plan.into_ledger:
            return item_of_document(row, plan.question, source=plan.source, pepper=plan.pepper)
        return item_of_text(row, plan.question, pepper=plan.pepper)

    def _ask_the_ledger(self, items: Sequence[Item]) -> tuple[dict[str, Settled], dict[str, dict[str, Any]]]:
        """What stands as the answer to some of these; and, for the others, what their answer would replace."""
        standing: dict[tuple[str, str, str], list[StandingTags]] = {}
        for one in self._tags.standing([Document(item.source, item.ref, item.kind) for item in items]):
            standing.setdefault((one.source, one.ref, one.kind), []).append(one)
        known: dict[str, Settled] = {}
        before: dict[str, dict[str, Any]] = {}
        for item in items:
            for one in standing.get((item.source, item.ref, item.kind), ()):
                if self._plan.question.is_answered_by(one.answer, item):
                    known[item.id] = Settled(outcome="cached", answer=slim(one.answer))
                elif self._plan.question.asks_what(one.answer):
                    before[item.id] = kept(one)
        return known, before

    def _order(self, items: Sequence[Item], known: Mapping[str, Settled]) -> dict[str, Settled]:
        """Have what stands as the answer to these written back: no worker will be asked, so none will order it."""
        ours = {
            Document(item.source, item.ref, item.kind): item for item in items if item.source in self._plan.accounts
        }
        if not ours or self._write_backs is None:
            return {}
        orders = {}
        for row in self._tags.standing(list(ours)):
            item = ours.get(row.document)
            if item is not None and self._plan.question.is_answered_by(row.answer, item):
                orders[item.id] = order_of(row, label_set=self._plan.question.label_set)
        # Before the window is kept: killed between the two, the same orders are asked for once more.
        self._write_backs.ask(list(orders.values()), now=datetime.now(UTC))
        return {id_: replace(known[id_], order=_ordered(order)) for id_, order in orders.items()}

    # send

    def _send(self, chunks: Sequence[Chunk]) -> None:
        """Accept them, publish those that are not known to be published, and note that their answers will come."""
        items = {chunk: self._job.items(chunk) for chunk in chunks}
        submissions = [
            Submission(id=chunk.message_id, task=TAG_MANY, message=self._plan.message(items[chunk])) for chunk in chunks
        ]
        until = datetime.now(UTC) + timedelta(seconds=self._settings.claim_s)
        receipts = self._intake.accept(submissions, claimed_until=until)
        due = [
            Due(id=s.id, task=s.task, queue=QUEUE_BULK, message=s.message, publishes=0)
            for s, receipt in zip(submissions, receipts, strict=True)
            if receipt.outcome == "accepted" or (receipt.outcome == "known" and self._is_unpublished(s.id))
        ]
        deliver(due, intake=self._intake, broker=self._broker, settings=self._settings)
        self._job.sent(chunks)
        for chunk, receipt in zip(chunks, receipts, strict=True):
            if receipt.outcome == "erased":
                self._fail(chunk, "every document of its message was erased")
        self.progress.sent += sum(map(len, items.values()))
        self.progress.in_flight += len(chunks)

    def _is_unpublished(self, id_: str) -> bool:
        """Whether we were killed between accepting it and publishing it."""
        row = self._intake.get(id_)
        return row is not None and row.state == "accepted"

    # collect

    def _collect(self, chunks: Sequence[Chunk]) -> int:
        """Keep the answers that came; for how many of these chunks."""
        results = self._broker.settled([chunk.message_id for chunk in chunks])
        for chunk in chunks:
            if (result := results.get(chunk.message_id)) is not None:
                self._settle(chunk, result)
        # Only now: killed before, they are read once more.
        self._broker.discard(list(results))
        if len(results) < len(chunks) and self._lost.is_due():
            self._look_for_lost([chunk for chunk in chunks if chunk.message_id not in results])
        return len(results)

    def _settle(self, chunk: Chunk, result: Mapping[str, Any]) -> None:
        if "error" in result:
            self._fail(chunk, str(result["error"]))
            return
        settled = [
            Settled(outcome="failed", reason=str(answer["error"])) if "error" in answer else self._settled(answer)
            for answer in result["answers"]
        ]
        self._keep(chunk, settled)

    def _settled(self, answer: Mapping[str, Any]) -> Settled:
        settled = _settled(answer)
        if not self._plan.accounts or answer["source"] not in self._plan.accounts:
            return settled
        # The worker has ordered it under the same id.
        order = order_of(TagRow.of(cast("Answer", answer)), label_set=answer["label_set"])
        return replace(settled, order=_ordered(order))

    def _fail(self, chunk: Chunk, reason: str) -> None:
        n = len(self._job.items(chunk))
        self._keep(chunk, [Settled(outcome="failed", reason=reason)] * n)

    def _keep(self, chunk: Chunk, settled: Sequence[Settled]) -> None:
        self._job.settle(chunk, settled)
        self.progress.was_settled(chunk.n, settled)

    def _look_for_lost(self, chunks: Sequence[Chunk]) -> None:
        """Ask the intake about messages whose result has not come."""
        now = datetime.now(UTC)
        for chunk in chunks:
            row = self._intake.get(chunk.message_id)
            finished_at = row.finished_at if row is not None else now - timedelta(days=1)
            if finished_at is None or (now - finished_at).total_seconds() < _RESULT_IS_LATE_S:
                continue
            if row is not None and row.state in ("dead", "erased"):
                self._fail(chunk, row.reason or row.state)
            else:
                # It is tagged; its result was evicted or has expired. Workers answer from what they know.
                log.warning("backfill.sent_again", id=chunk.message_id, attempt=chunk.attempt + 1)
                self._job.send_again(chunk)

    # pace

    def _load(self) -> Load:
        progress = self.progress
        if self._live.is_due():
            since = self._intake.unfinished_since(LIVE_QUEUES)
            progress.live_age_s = (datetime.now(UTC) - since).total_seconds() if since else 0.0
            progress.live_waiting = sum(map(self._broker.waiting, LIVE_QUEUES))
        load = Load(
            in_flight=progress.in_flight,
            live_waiting=progress.live_waiting,
            live_age_s=progress.live_age_s,
            sent=progress.sent,
            elapsed_s=progress.elapsed_s,
            now=datetime.now().astimezone(),
        )
        self._held = live_is_behind(load, self._plan.limits, held=self._held)
        return load


def order_of(row: TagRow, *, label_set: str | None) -> Order:
    """The order to write these tags back to where their document comes from.

    Args:
        row: The answer.
        label_set: Under whose policy; the same labels may have been asked under another name, or under none.
    """
    return replace(Order.about(row, WriteBack(system=row.source)), label_set=label_set)


def kept(row: StandingTags) -> dict[str, Any]:
    """The row as a job file keeps it."""
    moments = {name: getattr(row, name).isoformat() for name in _MOMENTS}
    return {**asdict(row), **moments, "logits": row.logits and row.logits.hex()}


def restored(values: Mapping[str, Any]) -> StandingTags:
    """The row of ``kept``."""
    moments = {name: datetime.fromisoformat(values[name]) for name in _MOMENTS}
    logits = bytes.fromhex(packed) if (packed := values.get("logits")) else None
    return StandingTags(**cast("dict[str, Any]", {**values, **moments, "logits": logits}))


class _Every:
    """Due at once, and then every so many seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_at = 0.0

    def is_due(self) -> bool:
        """Whether its time has come; the next one is then set."""
        now = time.monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + self._every_s
        return True


def _ordered(order: Order) -> Ordered:
    return Ordered(id=order.submission.id, task_id=order.task_id)


def _settled(answer: Mapping[str, Any]) -> Settled:
    return Settled(
        outcome="tagged",
        answer=slim(answer),
        cache=answer["cache"],
        tokens=answer["tokens"],
        computed=answer.get("computed", 0),  # a worker of an earlier version does not say
    )
