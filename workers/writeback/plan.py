"""What is to be done to a ticket, decided from what stands, what the account wants and what the ticket carries. Pure.

We add tags. We take off none that we did not set, and those only where the policy says ``replace_own``. A tag that
somebody took off after we had set it stays off for this revision of the document.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from integrations.accounts import WriteBackPolicy
from ledger.writebacks import Order, OwnTag
from tagging.answers import Answer, Tag

NOTE_INTRODUCTION = "建议标签 / Suggested tags"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A ticket as it is now."""

    name: str
    """As its system names it."""
    tags: frozenset[str]
    """That it carries."""
    own: Sequence[OwnTag]
    """Tags on it that are or were ours, for whatever document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The tags of an answer under a policy, in their system's spelling, highest score first."""

    apply: Mapping[str, float] = field(default_factory=dict)
    suggest: Mapping[str, float] = field(default_factory=dict)
    unknown: int = 0
    """How many were left out because the system does not have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done to a ticket."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    note: str | None = None
    """What agents are told."""
    held: tuple[OwnTag, ...] = ()
    """Ours for this order once it is carried out; those to be added among them."""
    gone: tuple[OwnTag, ...] = ()
    """No longer ours once it is carried out: taken off by us, or found missing."""


def choose(
    answer: Answer,
    policy: WriteBackPolicy,
    *,
    mode: str,
    known: frozenset[str] | None,
    tag_of: Callable[[str], str],
) -> Wanted:
    """What the answer asks to have on its ticket, ``policy.top_k`` tags at most.

    Args:
        answer: As it stands.
        policy: The account's for the label set.
        mode: ``suggest`` where the sender asked for no more.
        known: Tags that exist in the system; None where it has no such list.
        tag_of: The system's spelling of a label.
    """
    spelled = [(tag_of(tag["label"]), tag["score"], tag["decision"]) for tag in _judged(answer, policy)]
    usable = [one for one in spelled if not policy.only_existing or known is None or one[0] in known]
    # Two labels may be one tag to the system: the one that scored higher counts.
    first = {tag: (score, decision) for tag, score, decision in reversed(usable[: policy.top_k])}
    best = dict(reversed(first.items()))
    may_apply = policy.mode == "apply" and mode != "suggest"
    applied = {tag: score for tag, (score, decision) in best.items() if may_apply and decision == "apply"}
    return Wanted(
        apply=applied,
        suggest={tag: score for tag, (score, _) in best.items() if tag not in applied},
        unknown=len(spelled) - len(usable),
    )


def plan(order: Order, policy: WriteBackPolicy, wanted: Wanted, ticket: Ticket) -> Plan:
    """What to do so that the ticket carries what is wanted."""
    mine = {own.tag: own for own in ticket.own if own.is_for(order)}
    ours = {own.tag for own in ticket.own if own.removed_at is None}
    missing = [own for own in ticket.own if _was_taken_off(own, ticket.tags)]
    add = [tag for tag in wanted.apply if tag not in ticket.tags and not _stays_off(mine.get(tag), order)]
    stays = [tag for tag in wanted.apply if tag in ticket.tags and tag in ours]
    outdated = _outdated(order, policy, wanted, ticket)
    suggested = {tag: score for tag, score in wanted.suggest.items() if tag not in ticket.tags}
    return Plan(
        add=tuple(add),
        remove=tuple(own.tag for own in outdated if not _is_held_elsewhere(own, ticket.own)),
        note=_note(suggested) if suggested else None,
        held=tuple(OwnTag.of(order, ticket.name, tag) for tag in (*add, *stays)),
        gone=(*missing, *outdated),
    )


def _judged(answer: Answer, policy: WriteBackPolicy) -> list[Tag]:
    """The answer's tags under the policy's own thresholds, those to be applied first."""
    scores = dict(zip(answer["labels"], answer["scores"], strict=True))
    tags = {tag["label"]: tag for tag in answer["tags"]}
    candidates = scores if answer["multi_label"] else ([max(scores, key=scores.__getitem__)] if scores else [])
    judged = [
        judged
        for label in candidates
        if (judged := _judge(label, scores[label], tags.get(label), policy.thresholds.get(label))) is not None
    ]
    return sorted(judged, key=lambda tag: (tag["decision"] != "apply", -tag["score"], tag["label"]))


def _judge(label: str, score: float, tag: Tag | None, apply_at: float | None) -> Tag | None:
    if apply_at is None:
        return tag
    if score >= apply_at:
        return Tag(label=label, score=score, decision="apply")
    return tag and Tag(label=label, score=score, decision="suggest")


def _was_taken_off(own: OwnTag, carried: Collection[str]) -> bool:
    # Without ``set_at`` the call may never have come to the system.
    return own.set_at is not None and own.removed_at is None and own.tag not in carried


def _stays_off(own: OwnTag | None, order: Order) -> bool:
    """Whether somebody took it off after we had set it for this revision."""
    return own is not None and own.set_at is not None and own.revision == order.revision


def _outdated(order: Order, policy: WriteBackPolicy, wanted: Wanted, ticket: Ticket) -> list[OwnTag]:
    """Own tags that the order's document no longer wants and that may be taken off."""
    if not policy.replace_own or policy.mode != "apply" or order.mode == "suggest":
        return []
    return [
        own
        for own in ticket.own
        if own.is_for(order) and own.removed_at is None and own.tag in ticket.tags and own.tag not in wanted.apply
    ]


def _is_held_elsewhere(own: OwnTag, others: Sequence[OwnTag]) -> bool:
    """Whether another document or label set wants the same tag on the same ticket."""
    return any(other.tag == own.tag and other.removed_at is None and other.id != own.id for other in others)


def _note(suggested: Mapping[str, float]) -> str:
    return f"{NOTE_INTRODUCTION}: " + ", ".join(f"{tag} ({score:.2f})" for tag, score in suggested.items())
