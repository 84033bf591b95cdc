"""Scores, decisions and tags out of logits. Pure.

The rules are those of ModelScope's zero-shot pipeline (1.40): one label of several is chosen by a softmax over the
labels' entailment logits; labels scored by themselves, and a single label, by a softmax over contradiction and
entailment. The neutral logit is never read.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter

from tagging.answers import Decision, Tag
from tagging.labels import Policy
from workers.ports import Logit


def score(logits: Sequence[Logit], *, multi_label: bool) -> list[float]:
    """A score from 0 to 1 for each label, in the order of the logits; they add up to 1 unless ``multi_label``."""
    if multi_label or len(logits) == 1:
        return [_sigmoid(logit.entailment - logit.contradiction) for logit in logits]
    return _softmax([logit.entailment for logit in logits])


def is_finite(logits: Iterable[Logit]) -> bool:
    """Whether no NaN and no infinity is among the logits."""
    return math.isfinite(sum(map(abs, chain.from_iterable(logits))))


def decide(labels: Sequence[str], scores: Sequence[float], *, multi_label: bool, policy: Policy) -> list[Tag]:
    """The labels that become tags, highest score first; at most one unless ``multi_label``."""
    scored = zip(labels, scores, strict=True)
    candidates = sorted(scored, key=_by_score, reverse=True) if multi_label else [max(scored, key=_by_score)]
    return [tag for label, value in candidates if (tag := _tag(label, value, policy)) is not None]


_by_score = itemgetter(1)


def strongest(tags: Sequence[Tag]) -> Decision:
    """The decision about the text as a whole."""
    if any(tag["decision"] == "apply" for tag in tags):
        return "apply"
    return "suggest" if tags else "abstain"


def _tag(label: str, value: float, policy: Policy) -> Tag | None:
    apply_at = policy.per_label.get(label, policy.apply_at)
    if value >= apply_at:
        return Tag(label=label, score=value, decision="apply")
    if value >= min(policy.suggest_at, apply_at):
        return Tag(label=label, score=value, decision="suggest")
    return None


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    weight = math.exp(x)
    return weight / (1.0 + weight)
