"""Tasks and answers for tests, where only what matters has to be said."""

from collections.abc import Mapping
from types import MappingProxyType

from tagging.answers import Answer
from tagging.digests import label_set_digest, text_digest
from tagging.labels import Policy
from tagging.messages import TagTask
from tagging.names import Kind
from workers.ports import Logit, Stored, TextKey

TEXT = "canary: my card 4711 was charged twice"
"""What a customer wrote; must be found in no key, log or message."""
LABELS = ("canary-billing", "canary-login")


def stored(
    ref: str = "T-1",
    *,
    revision: int = 1,
    task_id: str | None = None,
    source: str = "zendesk",
    kind: Kind = "ticket",
    labels: tuple[str, ...] = LABELS,
    multi_label: bool = False,
    fingerprint: str = "demo-1",
    score: float = 0.9,
    text: str = TEXT,
    logits: Mapping[bytes, Logit] = MappingProxyType({}),
) -> Stored:
    """A done task; another revision of a document is another task unless ``task_id`` says otherwise."""
    task = TagTask(
        id=task_id or f"{source}/{ref}@{revision}",
        kind=kind,
        source=source,
        ref=ref,
        revision=revision,
        text=text,
        labels=labels,
        label_set=None,
        multi_label=multi_label,
        template="This is about {}.",
        policy=Policy(),
    )
    key = TextKey(model=fingerprint, text=text_digest(text))
    return Stored(task, task.id, answer(task, fingerprint=fingerprint, score=score), key, logits)


def answer(task: TagTask, *, fingerprint: str = "demo-1", score: float = 0.9) -> Answer:
    """An answer that applies the task's first label."""
    return {
        "schema_version": "1.2",
        "id": task.id,
        "kind": task.kind,
        "source": task.source,
        "ref": task.ref,
        "revision": task.revision,
        "decision": "apply",
        "tags": [{"label": task.labels[0], "score": score, "decision": "apply"}],
        "labels": list(task.labels),
        "scores": [score, *[round(1 - score, 6)] * (len(task.labels) - 1)],
        "multi_label": task.multi_label,
        "template": task.template,
        "label_set": task.label_set,
        "label_set_digest": label_set_digest(task.hypotheses),
        "model": {"name": "demo", "revision": "1", "fingerprint": fingerprint, "precision": "float32"},
        "long_text": task.long_text.rule,
        "windows": 1,
        "truncated": False,
        "cache": "none",
        "queue_ms": 1.0,
        "infer_ms": 2.0,
        "device_ms": 2.0,
        "batch_size": 1,
        "tokens": 20,
        "computed": 2,
    }
