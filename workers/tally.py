"""What a batch came to, for the meter and the log."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import structlog

from tagging.errors import DeviceOutOfMemory, EngineDied, EngineError
from tagging.names import Lane, lane_of
from workers.metrics import (
    BATCH_MESSAGES,
    DEVICE_SECONDS,
    ENGINE_SHRUNK,
    MESSAGES,
    PADDED_TOKENS,
    PAIRS,
    QUEUE_SECONDS,
    TEXTS,
    TOKENS,
)
from workers.ports import Meter
from workers.verdicts import Dead, Refused, Retry, Tagged, Verdict
from workers.work import Delivery, Work

log = structlog.get_logger()


def measure(work: Work, meter: Meter) -> None:
    """Count what the batch held and what it cost."""
    meter.observe(BATCH_MESSAGES, len(work.deliveries))
    meter.add(TEXTS, len(work.questions))
    for answer, n in work.answered_by.items():
        meter.add(PAIRS, n, answer=answer)
    meter.add(TOKENS, sum(question.tokens for question in work.questions))
    meter.add(PADDED_TOKENS, work.padded_tokens)
    meter.add(ENGINE_SHRUNK, work.shrunk)
    meter.add(DEVICE_SECONDS, work.device_ms / 1000)


def measure_verdicts(deliveries: Sequence[Delivery], verdicts: Sequence[Verdict], meter: Meter) -> None:
    """Count what became of each delivery and how long it waited."""
    outcomes: defaultdict[Lane, Counter[str]] = defaultdict(Counter)
    queued_s: defaultdict[Lane, list[float]] = defaultdict(list)
    for delivery, verdict in zip(deliveries, verdicts, strict=True):
        lane = lane_of(delivery.task)
        outcomes[lane][_outcome(verdict)] += 1
        queued_s[lane].append(delivery.queued_ms / 1000)
    for lane, counts in outcomes.items():
        meter.observe(QUEUE_SECONDS, *queued_s[lane], lane=lane)
        for outcome, n in counts.items():
            meter.add(MESSAGES, n, lane=lane, outcome=outcome)


def tell(work: Work, verdicts: Sequence[Verdict], *, model: str) -> None:
    """Log the batch in one line, and each delivery that was not simply tagged in one more."""
    questions = work.questions
    answered_by = work.answered_by
    log.info(
        "batch.tagged",
        n=len(work.deliveries),
        texts=len(questions),
        pairs=answered_by.total(),
        computed=answered_by["computed"],
        saved=answered_by.total() - answered_by["computed"] - answered_by["failed"],
        tokens=sum(q.tokens for q in questions),
        queue_ms=round(max((d.queued_ms for d in work.deliveries), default=0.0)),
        infer_ms=round(work.infer_ms),
        model=model,
    )
    for delivery, verdict in zip(work.deliveries, verdicts, strict=True):
        match verdict:
            case Dead(cause=cause):
                log.warning("message.parked", id=delivery.id, reason=str(cause), attempts=delivery.attempts + 1)
            case Retry(cause=cause):
                log.warning("message.retried", id=delivery.id, reason=str(cause), attempts=delivery.attempts + 1)
            case Refused():
                log.info("message.refused", id=delivery.id, reason="erased")
            case Tagged():
                pass


def _outcome(verdict: Verdict) -> str:
    match verdict:
        case Tagged():
            return "tagged"
        case Retry():
            return "retried"
        case Dead():
            return "dead"
        case Refused():
            return "refused"


def cause_of(error: EngineError) -> str:
    """The error's kind, for the meter."""
    match error:
        case EngineDied():
            return "died"
        case DeviceOutOfMemory():
            return "out_of_memory"
        case _:
            return "other"
