"""From the messages of one batch to a verdict for each, every one of them recorded.

The order of steps is all that lives here; Celery, Redis and torch are somebody else's. ``prepare`` reads the bodies
and asks the caches, ``infer`` asks the engine for what is missing (``turns`` a part at a time), ``exchange`` shares it
with the other workers and takes what they were computing, ``record`` folds, stores and returns the verdicts. Batches
overlap: while one infers, the next may prepare and the one before may exchange or record.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import structlog

from tagging.answers import Answer
from tagging.documents import Document
from tagging.errors import (
    DocumentErased,
    EngineDied,
    EngineError,
    InvalidMessage,
    StoreUnavailable,
    TagmillError,
    WorkerCrashed,
)
from tagging.messages import Decoder, TagTask, body_of
from tagging.names import TAG_MANY
from workers.answering import fold, many
from workers.batching import Size
from workers.letters import letter, letters_of
from workers.metrics import ENGINE_FAILURES, INFERENCE_SECONDS
from workers.ports import Crashes, DeadLetters, Engine, Meter, ModelInfo, Pair, Sought, Stored, TagStore
from workers.recall import Premise, Premises, Recall
from workers.tally import cause_of, measure, measure_verdicts, tell
from workers.turns import Stride
from workers.verdicts import Dead, Refused, Retry, Tagged, Verdict
from workers.weighing import tokens_of_pair, weigh
from workers.work import Delivery, Entry, Question, Work, entries_of

log = structlog.get_logger()

_MAX_CRASHES: Final = 3
"""Runs alone that ended the worker, after which a message is parked without another."""
_MAX_DEATHS: Final = 3
"""Attempts at a text that ends the engine's process each time: every one costs the loading of a model."""


class Pipeline:
    """Never raises but for a ledger out of reach; verdicts in the order of the deliveries, already recorded."""

    def __init__(
        self,
        *,
        engine: Engine,
        decoder: Decoder,
        recall: Recall,
        store: TagStore,
        dead_letters: DeadLetters,
        crashes: Crashes,
        max_attempts: int,
        meter: Meter,
        pepper: str = "",
        turn_s: float = 0.02,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._recall = recall
        self._store = store
        self._dead_letters = dead_letters
        self._crashes = crashes
        self._max_attempts = max_attempts
        self._meter = meter
        self._pepper = pepper
        self._stride = Stride(turn_s=turn_s)
        self._clock = clock

    @property
    def model(self) -> ModelInfo:
        """The model that answers."""
        return self._engine.info

    def weigh(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Size:
        """What the message will cost, guessed without checking it; a wrong message costs next to nothing."""
        body = args[0] if args else kwargs
        return weigh(task, body, book=self._decoder.book, max_length=self.model.max_length)

    def prepare(self, deliveries: Sequence[Delivery]) -> Work:
        """Read the bodies and ask the caches, once for the whole batch."""
        premises = Premises(model=_name_for_caches(self.model), pepper=self._pepper)
        contents = [self._read(delivery, premises) for delivery in deliveries]
        work = Work(deliveries=deliveries, contents=contents, premises=list(premises))
        self._recall.look_up(work.premises)
        self._look_back(work)
        return work

    def count(self, work: Work) -> WorkerCrashed | None:
        """Keep in the ledger that this work, which came back, runs now; why it must not, if it ended too many workers.

        Work that the caches answer is not counted: it does not come near the engine.

        Raises:
            StoreUnavailable: It must not run yet.
        """
        if not any(premise.open for premise in work.premises):
            return None
        crashes = max(self._crashes.begin(delivery.id) for delivery in work.deliveries) - 1
        if crashes < _MAX_CRASHES:
            return None
        return WorkerCrashed(f"{crashes} workers died while this message ran alone; it was not run again")

    def outlived(self, work: Work) -> None:
        """Forget the counts of this work: whatever became of it, the worker is there.

        Raises:
            StoreUnavailable: The counts are as they were.
        """
        self._crashes.end([delivery.id for delivery in work.deliveries])

    def infer(self, work: Work) -> None:
        """Ask the engine for the pairs that are left. One thread at a time: the caller holds the device."""
        self._compute(work.premises, work)

    def turns(self, work: Work) -> Iterator[None]:
        """As ``infer``, some texts at a time: between two turns others may have the device.

        Long texts come first, so that those of a turn have about the same length.
        """
        left = sorted((premise for premise in work.premises if premise.for_device), key=lambda p: -len(p.text))
        tokens = [_tokens(premise, max_length=self.model.max_length) for premise in left]
        while left:
            n, before_ms = self._stride.cut(tokens), work.device_ms
            self._compute(left[:n], work)
            self._stride.learn(sum(tokens[:n]), (work.device_ms - before_ms) / 1000)
            left, tokens = left[n:], tokens[n:]
            if left:
                yield

    def exchange(self, work: Work) -> None:
        """Share what was computed and take what other workers promised; the caller no longer holds the device.

        What did not come in time is the engine's to answer: then ``work.needs_device`` again, for the last time.
        """
        self._recall.share(work.premises)
        self._recall.wait_for_others(work.premises)

    def record(self, work: Work) -> list[Verdict]:
        """Store answers and dead letters, and say what becomes of each delivery.

        Raises:
            StoreUnavailable: Nothing is final yet; call again with the same work once the ledger is back.
        """
        self._recall.share(work.premises)
        fold(work, info=self.model, pepper=self._pepper)
        verdicts = [self._judge(d, c, work.answers) for d, c in zip(work.deliveries, work.contents, strict=True)]
        # In this order: a message that is finished in the intake is not published again, so its letters come first.
        self._dead_letters.park(list(letters_of(work, verdicts)))
        erased = self._store.write(list(_rows(work, verdicts)), done=list(_done(work, verdicts)))
        if erased:
            verdicts = self._without(erased, work, verdicts)
        measure(work, self._meter)
        measure_verdicts(work.deliveries, verdicts, self._meter)
        tell(work, verdicts, model=self.model.name)
        return verdicts

    def give_up(self, deliveries: Sequence[Delivery], cause: TagmillError) -> list[Verdict]:
        """Verdicts for a batch that could not be processed at all: try each again, and park it in the end."""
        return self._set_aside(deliveries, [self._not_now(delivery, cause) for delivery in deliveries], cause)

    def bury(self, deliveries: Sequence[Delivery], cause: TagmillError) -> list[Verdict]:
        """Verdicts for a batch that must not be processed at all: each is parked.

        Raises:
            StoreUnavailable: Nothing was parked; call again once the ledger is back.
        """
        for delivery in deliveries:
            log.warning("message.parked", id=delivery.id, reason=str(cause), attempts=delivery.attempts + 1)
        return self._set_aside(deliveries, [Dead(cause=cause) for _ in deliveries], cause)

    def _set_aside(
        self, deliveries: Sequence[Delivery], verdicts: Sequence[Verdict], cause: TagmillError
    ) -> list[Verdict]:
        self._dead_letters.park(
            [
                letter(delivery, id_=delivery.id, body=delivery.body, cause=cause)
                for delivery, verdict in zip(deliveries, verdicts, strict=True)
                if isinstance(verdict, Dead)
            ]
        )
        measure_verdicts(deliveries, verdicts, self._meter)
        return list(verdicts)

    def close(self) -> None:
        """Free the device."""
        self._engine.close()

    # prepare

    def _read(self, delivery: Delivery, premises: Premises) -> list[Entry] | InvalidMessage:
        try:
            body = body_of(delivery.args, delivery.kwargs)
            if delivery.task == TAG_MANY:
                items = self._decoder.many(body, task_id=delivery.id)
            else:
                items = [self._decoder.one(delivery.task, body, task_id=delivery.id)]
        except InvalidMessage as e:
            return e
        return [_question(delivery, i, premises) if isinstance(i, TagTask) else i for i in items]

    def _look_back(self, work: Work) -> None:
        """Where it is asked for: what was kept with earlier answers about the same documents."""
        asked = [question for question in work.questions if question.task.relabel and question.asked.premise.open]
        if not asked:
            return
        try:
            known = self._store.known([_sought(question) for question in asked])
        except StoreUnavailable as e:
            # It only costs: the device can answer, and the batch waits for the ledger at its end.
            log.warning("relabel.unknown", texts=len(asked), reason=str(e))
            return
        for premise in {id(question.asked.premise): question.asked.premise for question in asked}.values():
            if logits := known.get(premise.key):
                premise.remember(logits)

    # infer

    def _compute(self, premises: Sequence[Premise], work: Work) -> None:
        """Ask the engine for what is left of these."""
        began = self._clock()
        # Batches pass here one after the other, so what the one before has computed is in memory by now.
        self._recall.look_again(premises)
        self._entail(premises, work)
        self._recall.keep(premises)
        work.infer_ms += (self._clock() - began) * 1000

    def _entail(self, premises: Iterable[Premise], work: Work) -> None:
        """Fill in the logits; a text that fails is found by halving, so that it costs its neighbours nothing."""
        asked = [(premise, digests) for premise in premises if (digests := premise.for_device)]
        if not asked:
            return
        began = self._clock()
        try:
            entailment = self._engine.entail(list(_pairs(asked)))
        except EngineError as e:
            self._meter.add(ENGINE_FAILURES, cause=cause_of(e))
            self._isolate([premise for premise, _ in asked], work, e)
            return
        self._meter.observe(INFERENCE_SECONDS, self._clock() - began)
        work.device_ms += entailment.device_ms
        work.padded_tokens += entailment.padded_tokens
        work.shrunk += entailment.shrunk
        logits, tokens, readings = iter(entailment.logits), iter(entailment.tokens), iter(entailment.readings)
        for premise, digests in asked:
            n = len(digests)
            premise.compute(
                dict(zip(digests, islice(logits, n), strict=True)), dict(zip(digests, islice(tokens, n), strict=True))
            )
            premise.readings += islice(readings, n)

    def _isolate(self, premises: Sequence[Premise], work: Work, cause: EngineError) -> None:
        if len(premises) == 1:
            premises[0].error = cause
            return
        # A death costs the loading of a model, so the text that causes it is looked for one by one: one more death.
        size = 1 if isinstance(cause, EngineDied) else (len(premises) + 1) // 2
        log.warning("batch.divided", n=len(premises), into=size, cause=type(cause).__name__)
        for i in range(0, len(premises), size):
            self._entail(premises[i : i + size], work)

    # record

    def _judge(
        self, delivery: Delivery, contents: list[Entry] | InvalidMessage, answers: Mapping[int, Answer]
    ) -> Verdict:
        if isinstance(contents, InvalidMessage):
            return Dead(cause=contents)
        failed = [entry.error for entry in contents if isinstance(entry, Question) and entry.error is not None]
        if failed and delivery.task != TAG_MANY and isinstance(failed[0], DocumentErased):
            return Refused(cause=failed[0])
        faults = [error for error in failed if not isinstance(error, DocumentErased)]
        verdict = self._not_now(delivery, faults[0]) if faults else None
        if isinstance(verdict, Retry):
            return verdict
        if delivery.task == TAG_MANY:
            return Tagged(result=many(delivery.id, contents, answers))
        if verdict is not None:
            return verdict
        return Tagged(result=next(answers[id(entry)] for entry in contents))

    def _without(self, erased: Collection[Document], work: Work, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The verdicts, now that it is known which documents were erased while their texts were on the way."""
        refused = [question for question in work.questions if _document(question.task) in erased]
        for question in refused:
            question.error = DocumentErased()
        # They came after `tagmill erase` had emptied the caches, and were remembered again like any other.
        self._recall.forget([question.asked.premise for question in refused])
        return [
            self._judge(delivery, contents, work.answers) if isinstance(verdict, Tagged) else verdict
            for delivery, contents, verdict in zip(work.deliveries, work.contents, verdicts, strict=True)
        ]

    def _not_now(self, delivery: Delivery, cause: TagmillError) -> Retry | Dead:
        most = min(self._max_attempts, _MAX_DEATHS) if isinstance(cause, EngineDied) else self._max_attempts
        return Retry(cause=cause) if delivery.attempts + 1 < most else Dead(cause=cause)


def _name_for_caches(model: ModelInfo) -> str:
    """Everything about the model that its logits depend on."""
    return f"{model.fingerprint[:16]}.{model.precision}.{model.max_length}{'.exact' if model.exact else ''}"


def _question(delivery: Delivery, task: TagTask, premises: Premises) -> Question:
    return Question(task=task, task_id=delivery.id, asked=premises.ask(task.text, task.hypotheses, task.long_text))


def _tokens(premise: Premise, *, max_length: int) -> int:
    """About what the device has to compute for this text."""
    return len(premise.for_device) * tokens_of_pair(premise.text, premise.long_text, max_length=max_length)


def _pairs(asked: Iterable[tuple[Premise, Iterable[bytes]]]) -> Iterator[Pair]:
    for premise, digests in asked:
        for digest in digests:
            yield Pair(premise.text, premise.hypotheses[digest], premise.long_text)


def _rows(work: Work, verdicts: Sequence[Verdict]) -> Iterator[Stored]:
    """What the ledger gets: the answers of deliveries that are done."""
    for contents, verdict in zip(work.contents, verdicts, strict=True):
        for entry in entries_of(contents) if isinstance(verdict, Tagged) else []:
            if isinstance(entry, Question) and entry.error is None:
                logits = dict(zip(entry.asked.digests, entry.logits, strict=True))
                yield Stored(entry.task, entry.task_id, work.answers[id(entry)], entry.asked.premise.key, logits)


def _done(work: Work, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The messages that are done, even those of which every item was wrong."""
    return (
        delivery.id for delivery, verdict in zip(work.deliveries, verdicts, strict=True) if isinstance(verdict, Tagged)
    )


def _sought(question: Question) -> Sought:
    premise = question.asked.premise
    return Sought(_document(question.task), premise.key, premise.open)


def _document(task: TagTask) -> Document:
    return Document(task.source, task.ref, task.kind)
