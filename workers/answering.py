"""From the logits of a batch to the answers that are sent back: plain values in, plain values out."""

from collections import Counter
from collections.abc import Iterable, Mapping

from tagging.answers import Answer, AnsweringModel, CacheTier, ItemError, ManyAnswers
from tagging.digests import label_set_digest
from tagging.messages import SCHEMA_VERSION
from workers import scoring
from workers.ports import ModelInfo
from workers.work import Entry, Question, Work, error_of


def fold(work: Work, *, info: ModelInfo, pepper: str) -> None:
    """Fill in the answer of each text that has one, and where the pairs of the batch came from."""
    questions = work.questions
    for question in questions:
        question.take_stock()
    work.answered_by = _sum(question.answered_by for question in questions)
    queued_ms = {delivery.id: delivery.queued_ms for delivery in work.deliveries}
    tokens = sum(q.tokens for q in questions) or 1
    model = AnsweringModel(
        name=info.name, revision=info.revision, fingerprint=info.fingerprint, precision=info.precision
    )
    work.answers = {
        id(q): _answer(
            q,
            queue_ms=queued_ms[q.task_id],
            infer_ms=work.infer_ms,
            device_ms=work.device_ms * q.tokens / tokens,
            batch_size=len(questions),
            model=model,
            pepper=pepper,
        )
        for q in questions
        if q.error is None
    }


def many(message_id: str, entries: Iterable[Entry], answers: Mapping[int, Answer]) -> ManyAnswers:
    """The result of a ``tag_many``: an answer or an error for each of its texts, in their order."""
    results: list[Answer | ItemError] = []
    for entry in entries:
        error = error_of(entry)
        results.append(ItemError(error=str(error)) if error is not None else answers[id(entry)])
    failed = sum("error" in result for result in results)
    return ManyAnswers(
        schema_version=SCHEMA_VERSION, id=message_id, done=len(results) - failed, failed=failed, answers=results
    )


def _answer(
    question: Question,
    *,
    queue_ms: float,
    infer_ms: float,
    device_ms: float,
    batch_size: int,
    model: AnsweringModel,
    pepper: str,
) -> Answer:
    task = question.task
    cache = _cache(question.answered_by)
    readings = question.asked.premise.readings
    scores = scoring.score(question.logits, multi_label=task.multi_label)
    tags = scoring.decide(task.labels, scores, multi_label=task.multi_label, policy=task.policy)
    return Answer(
        schema_version=SCHEMA_VERSION,
        id=task.id,
        kind=task.kind,
        source=task.source,
        ref=task.ref,
        revision=task.revision,
        decision=scoring.strongest(tags),
        tags=tags,
        labels=list(task.labels),
        scores=scores,
        multi_label=task.multi_label,
        template=task.template,
        label_set=task.label_set,
        label_set_digest=label_set_digest(task.hypotheses, pepper=pepper),
        model=model,
        long_text=task.long_text.rule,
        windows=max((reading.windows for reading in readings), default=None),
        truncated=any(reading.truncated for reading in readings) if readings else None,
        cache=cache,
        queue_ms=round(queue_ms, 3),
        infer_ms=round(infer_ms, 3) if cache in ("none", "pairs") else 0.0,
        device_ms=round(device_ms, 3),
        batch_size=batch_size,
        tokens=question.tokens,
        computed=question.answered_by.get("computed", 0),
    )


def _cache(answered_by: Mapping[str, int]) -> CacheTier:
    """What the answer says about where it came from."""
    if "computed" in answered_by:
        return "pairs" if len(answered_by) > 1 else "none"
    if "ledger" in answered_by:
        return "ledger"
    return "shared" if "shared" in answered_by or "other_worker" in answered_by else "local"


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        for name, n in count.items():
            total[name] += n
    return total
