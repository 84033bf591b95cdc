"""The intake: one row for each message that was accepted, until somebody has finished it and its time is over.

    accepted ──▶ published ──▶ done | superseded | dead
       ▲            │
       └─ postponed ┘   a worker wants it back later
        any of them, once its document is erased ──▶ erased

*Accepted* means committed here. A relay publishes what is accepted, and publishes again what was published and is not
finished for too long. A worker finishes a row in the transaction in which it writes the tags or parks the message.
Who publishes takes rows by *claiming* them: nobody else finds them due until the claim runs out.
"""

import json
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

import sqlalchemy as sa

from ledger.database import Database, Insert
from ledger.fence import erased_among
from ledger.lookup import among, portions
from ledger.schema import as_key, dead_letters, intake
from tagging.documents import DEFAULT_SOURCE, Document, documents_of, without
from tagging.errors import InvalidMessage
from tagging.names import KIND_OF_TASK, QUEUE_OF_TASK, TAG_MANY

State = Literal["accepted", "published", "postponed", "done", "superseded", "dead", "erased"]
Outcome = Literal["accepted", "known", "erased"]

UNFINISHED: Final[tuple[State, ...]] = ("accepted", "published", "postponed")
_TO_PUBLISH: Final[tuple[State, ...]] = ("accepted", "postponed")
FINISHED: Final[tuple[State, ...]] = ("done", "superseded", "dead", "erased")
_ONCE: Final = uuid.UUID("5b0a4a6e-3c6f-4c3b-9d52-0f0f0f2a7a11")  # any of our own
_QUEUES: Final = tuple(QUEUE_OF_TASK.values())  # live ones first
_LIVE: Final = tuple(QUEUE_OF_TASK[task] for task in KIND_OF_TASK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A message that somebody asks to have done."""

    id: str
    """Of the task that it becomes; the same one again is the same submission."""
    task: str
    message: Mapping[str, Any]
    idempotency_key: str | None = None
    """The sender's own name for this request, such as a webhook's delivery id; one a source."""

    @classmethod
    def once(cls, task: str, message: Mapping[str, Any]) -> Self:
        """The submission that asks this of this revision of this document; the same again has the same id.

        Raises:
            InvalidMessage: The message names no document.
        """
        if not message.get("ref"):
            raise InvalidMessage("ref: missing; only a document with a reference can be asked about once")
        question = {name: message.get(name) for name in ("label_set", "multi_label", "template", "model")}
        labels = sorted(map(str, message.get("labels") or ()))
        [document] = documents_of(task, message, task_id="")
        name = json.dumps([*document, message.get("revision") or 0, labels, question], sort_keys=True)
        return cls(id=str(uuid.uuid5(_ONCE, name)), task=task, message=message)

    @property
    def source(self) -> str:
        """The system that the message says it comes from."""
        return str(self.message.get("source") or DEFAULT_SOURCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a submission."""

    id: str
    """The task's id: the submission's own, or that of the first one with its idempotency key."""
    outcome: Outcome
    """``accepted``: committed now. ``known``: it was before. ``erased``: refused, its document was erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A claimed row, to be published."""

    id: str
    task: str
    queue: str
    message: Mapping[str, Any]
    publishes: int
    """How often a broker has confirmed it so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is published to a queue and not finished."""

    queue: str
    published: int
    overdue: int
    """Those of them that ought to be finished by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is accepted for the live lane and not finished."""

    unfinished: int
    since: datetime | None
    """When the oldest of them was accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRow:
    """A row as it stands, without its text."""

    id: str
    task: str
    source: str
    ref: str | None
    revision: int | None
    state: State
    publishes: int
    reason: str | None
    accepted_at: datetime
    published_at: datetime | None
    finished_at: datetime | None


class Intake:
    """Accepted messages, in a database. Any number of processes may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accept(self, submissions: Sequence[Submission], *, claimed_until: datetime | None = None) -> list[Receipt]:
        """A receipt for each submission, in their order, all of them committed.

        Args:
            submissions: Some hundreds at a time.
            claimed_until: Claim them at once, for a caller that publishes them itself. Default: due now.

        Raises:
            StoreUnavailable: None of them is known to be accepted.
        """
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            erased = erased_among(connection, (document for s in submissions for document in _documents(s)))
            wanted = [(s, without(erased, s.task, s.message, task_id=s.id)) for s in submissions]
            rows = [_row(s, body, now, claimed_until or now) for s, body in wanted if body is not None]
            new = self._insert(connection, rows)
            ids = _known_ids(connection, [s for s, body in wanted if body is not None and as_key(s.id) not in new])
        return [
            Receipt(id=key, outcome="erased") if body is None
            else Receipt(id=key, outcome="accepted") if key in new
            else Receipt(id=ids.get(key, key), outcome="known")
            for key, body in ((as_key(s.id), body) for s, body in wanted)
        ]  # fmt: skip

    def has_due(self, now: datetime) -> bool:
        """Whether anything accepted waits to be published; costs next to nothing.

        Raises:
            StoreUnavailable: The database failed.
        """
        due = sa.select(intake.c.id).where(
            intake.c.state.in_(_TO_PUBLISH), intake.c.queue.in_(_QUEUES), intake.c.next_publish_at <= now
        )
        with self._database.transaction() as connection:
            return connection.execute(due.limit(1)).first() is not None

    def claim(self, *, now: datetime, until: datetime, limit: int) -> list[Due]:
        """Accepted rows that are due, those of live queues first, ours until the claim runs out.

        Raises:
            StoreUnavailable: The database failed; what was claimed is free again after ``until``.
        """
        due: list[Due] = []
        with self._database.writing() as connection:
            for queue in _QUEUES:
                if len(due) < limit:
                    due += _claim(connection, _TO_PUBLISH, queue, now=now, until=until, limit=limit - len(due))
        return due

    def claim_overdue(self, quotas: Mapping[str, int], *, now: datetime, until: datetime) -> list[Due]:
        """Published rows that ought to be finished by now, the oldest of each queue, as many as its quota says.

        Raises:
            StoreUnavailable: The database failed; what was claimed is free again after ``until``.
        """
        with self._database.writing() as connection:
            return [
                due
                for queue, quota in quotas.items()
                for due in _claim(connection, ("published",), queue, now=now, until=until, limit=quota)
            ]

    def published(self, ids: Collection[str], *, now: datetime, again_at: datetime) -> None:
        """The broker has confirmed these; they are overdue at ``again_at``. What a worker has finished stays so.

        Raises:
            StoreUnavailable: The database failed; they will be published again, which is harmless.
        """
        # One that a worker has postponed before this was noted stays postponed.
        unfinished = intake.c.state.in_(("accepted", "published"))
        kept = sa.case((intake.c.state == "postponed", intake.c.next_publish_at), else_=None)
        with self._database.writing() as connection:
            for some in portions(sorted(map(as_key, ids))):
                connection.execute(
                    sa.update(intake)
                    .where(intake.c.id.in_(_in_order(some)))
                    .values(
                        state=sa.case((unfinished, "published"), else_=intake.c.state),
                        next_publish_at=sa.case((unfinished, again_at), else_=kept),
                        published_at=now,
                        publishes=intake.c.publishes + 1,
                    )
                )

    def release(self, ids: Collection[str], *, now: datetime) -> None:
        """Give up the claim on these: they are due at once, for whoever reaches the broker.

        Raises:
            StoreUnavailable: The database failed; they are due when the claim runs out.
        """
        with self._database.writing() as connection:
            for some in portions(sorted(map(as_key, ids))):
                change = sa.update(intake).where(intake.c.id.in_(_in_order(some)), intake.c.state.in_(UNFINISHED))
                connection.execute(change.values(next_publish_at=now))

    def give_up(self, due: Sequence[Due], reason: str) -> None:
        """Park these as dead letters with this reason.

        Raises:
            StoreUnavailable: The database failed; nothing was changed.
        """
        now = datetime.now(UTC)
        with self._database.writing() as connection:
            open_ = _locked(connection, [one.id for one in due])
            letters = [_letter(one, reason, now) for one in due if as_key(one.id) in open_]
            if not letters:
                return
            connection.execute(self._database.insert(dead_letters).on_conflict_do_nothing(), letters)
            finish(connection, {str(letter["id"]): reason for letter in letters}, "dead", now)

    def backlogs(self, now: datetime) -> list[Backlog]:
        """What is published and not finished, by queue.

        Raises:
            StoreUnavailable: The database failed.
        """
        overdue = sa.func.sum(sa.case((intake.c.next_publish_at <= now, 1), else_=0))
        query = sa.select(intake.c.queue, sa.func.count(), overdue).where(intake.c.state == "published")
        with self._database.transaction() as connection:
            rows = connection.execute(query.group_by(intake.c.queue)).all()
        return [Backlog(queue=queue, published=published, overdue=int(late)) for queue, published, late in rows]

    def get(self, id_: str) -> IntakeRow | None:
        """The row of this task id.

        Raises:
            StoreUnavailable: The database failed.
        """
        return next(iter(self._select(intake.c.id == id_)), None)

    def by_ref(self, ref: str, source: str | None = None) -> list[IntakeRow]:
        """The rows about the document of this reference, newest first; those of a ``tag_many`` are not among them.

        Raises:
            StoreUnavailable: The database failed.
        """
        return self._select(sa.and_(intake.c.ref == ref, intake.c.source == source if source else sa.true()))

    def message(self, id_: str) -> Any:
        """The message as it was accepted; None once its text is gone.

        Raises:
            StoreUnavailable: The database failed.
        """
        with self._database.transaction() as connection:
            return message_in(connection.execute(sa.select(intake.c.body).where(intake.c.id == id_)).scalar())

    def finished_among(self, ids: Collection[str]) -> set[str]:
        """Those of these task ids that are finished, one way or another.

        Raises:
            StoreUnavailable: The database failed.
        """
        return self._in_state(FINISHED, ids)

    def unfinished_among(self, ids: Collection[str]) -> set[str]:
        """Those of these task ids that are accepted and not finished.

        Raises:
            StoreUnavailable: The database failed.
        """
        return self._in_state(UNFINISHED, ids)

    def states(self, ids: Collection[str]) -> dict[State, int]:
        """How many of these task ids are in each state; those that the intake does not have are in none.

        Raises:
            StoreUnavailable: The database failed.
        """
        counts: Counter[State] = Counter()
        query = sa.select(intake.c.state, sa.func.count()).group_by(intake.c.state)
        with self._database.transaction() as connection:
            for some in portions([*map(as_key, ids)]):
                counts.update({row[0]: row[1] for row in connection.execute(query.where(intake.c.id.in_(some)))})
        return dict(counts)

    def load(self) -> Load:
        """How much is accepted for the live lane and not finished; backfills and orders to write back are
        none of a live caller's business.

        Raises:
            StoreUnavailable: The database failed.
        """
        oldest = sa.func.min(intake.c.accepted_at, type_=intake.c.accepted_at.type)
        query = sa.select(sa.func.count(), oldest)
        query = query.where(intake.c.state.in_(UNFINISHED), intake.c.queue.in_(_LIVE))
        with self._database.transaction() as connection:
            unfinished, since = connection.execute(query).one()
        return Load(unfinished=unfinished, since=since)

    def oldest_due(self, now: datetime) -> datetime | None:
        """Since when the longest waiting accepted message could have been published; None while none waits.

        Raises:
            StoreUnavailable: The database failed.
        """
        query = sa.select(sa.func.min(intake.c.next_publish_at, type_=intake.c.next_publish_at.type))
        query = query.where(intake.c.state.in_(_TO_PUBLISH), intake.c.queue.in_(_QUEUES))
        with self._database.transaction() as connection:
            since: datetime | None = connection.execute(query).scalar_one()
        return since if since is not None and since <= now else None

    def unfinished_since(self, queues: Collection[str]) -> datetime | None:
        """When the oldest message for these queues that is not finished was accepted; None where there is none.

        Raises:
            StoreUnavailable: The database failed.
        """
        query = sa.select(sa.func.min(intake.c.accepted_at, type_=intake.c.accepted_at.type))
        query = query.where(intake.c.state.in_(UNFINISHED), intake.c.queue.in_(queues))
        with self._database.transaction() as connection:
            since: datetime | None = connection.execute(query).scalar_one()
        return since

    def counts(self) -> dict[State, int]:
        """How many rows are in each state.

        Raises:
            StoreUnavailable: The database failed.
        """
        query = sa.select(intake.c.state, sa.func.count()).group_by(intake.c.state)
        with self._database.transaction() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _insert(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> set[str]:
        if not rows:
            return set()
        # Either constraint: the id, or the source's idempotency key.
        insert = self._database.insert(intake).on_conflict_do_nothing().returning(intake.c.id)
        return set(connection.execute(insert, rows).scalars())

    def _in_state(self, states: Collection[State], ids: Collection[str]) -> set[str]:
        query = sa.select(intake.c.id).where(intake.c.state.in_(states))
        with self._database.transaction() as connection:
            return {
                id_
                for some in portions([*map(as_key, ids)])
                for id_ in connection.execute(query.where(intake.c.id.in_(some))).scalars()
            }

    def _select(self, condition: sa.ColumnElement[bool]) -> list[IntakeRow]:
        columns = [intake.c[name] for name in IntakeRow.__dataclass_fields__]
        query = sa.select(*columns).where(condition).order_by(intake.c.accepted_at.desc(), intake.c.id)
        with self._database.transaction() as connection:
            return [IntakeRow(**row) for row in connection.execute(query).mappings()]


def finish(connection: sa.Connection, ids: Mapping[str, str | None], state: State, now: datetime) -> None:
    """Say what became of those of these messages that were accepted here, and why.

    A redelivery of what is finished changes nothing; what was dead, and is requeued, may be done.
    """
    changeable = UNFINISHED if state == "dead" else (*UNFINISHED, "dead")
    by_reason: dict[str | None, list[str]] = {}
    for id_, reason in ids.items():
        by_reason.setdefault(reason, []).append(as_key(id_))
    for reason, same in by_reason.items():
        for some in portions(sorted(same)):
            connection.execute(
                sa.update(intake)
                .where(intake.c.id.in_(_in_order(some)), intake.c.state.in_(changeable))
                .values(state=state, reason=reason, finished_at=now, next_publish_at=None)
            )


def ask(connection: sa.Connection, insert: Insert, submissions: Sequence[Submission], now: datetime) -> None:
    """Accept these in the caller's transaction, which has looked at the tombstones; what is known stays as it is."""
    rows = [_row(s, s.message, now, now) for s in submissions]
    if rows:
        connection.execute(insert.on_conflict_do_nothing(), rows)


def postpone(connection: sa.Connection, id_: str, *, message: Mapping[str, Any], until: datetime) -> bool:
    """Have this published again at that time, with this body; False where it is not here or is finished."""
    change = sa.update(intake).where(intake.c.id == id_, intake.c.state.in_(UNFINISHED))
    values = {"state": "postponed", "body": body_of(message), "publishes": 0, "next_publish_at": until}
    return connection.execute(change.values(**values)).rowcount > 0


def reopen(connection: sa.Connection, ids: Iterable[str], *, until: datetime) -> None:
    """Accept dead messages again, claimed by a caller that publishes them."""
    for some in portions(sorted(map(as_key, ids))):
        connection.execute(
            sa.update(intake)
            .where(intake.c.id.in_(_in_order(some)), intake.c.state == "dead")
            .values(state="accepted", publishes=0, reason=None, finished_at=None, next_publish_at=until)
        )


def forget_texts(connection: sa.Connection, ids: Iterable[str]) -> None:
    """Drop the bodies of dead messages."""
    for some in portions(sorted(map(as_key, ids))):
        change = sa.update(intake).where(intake.c.id.in_(_in_order(some)), intake.c.state == "dead")
        connection.execute(change.values(body=None))


def body_of(message: Mapping[str, Any]) -> str:
    """The message as it stands in a row."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def message_in(body: str | None) -> Any:
    """The message in a row's body; None once its text is gone."""
    return None if body is None else json.loads(body)


def _documents(submission: Submission) -> list[Document]:
    return documents_of(submission.task, submission.message, task_id=submission.id)


def _row(submission: Submission, body: Mapping[str, Any], now: datetime, due_at: datetime) -> dict[str, Any]:
    single = submission.task != TAG_MANY
    revision = body.get("revision") or 0
    return {
        "id": submission.id,
        "task": submission.task,
        "queue": QUEUE_OF_TASK[submission.task],
        "source": submission.source,
        "ref": _documents(submission)[0].ref if single else None,
        "kind": KIND_OF_TASK.get(submission.task) or body.get("kind"),
        "revision": revision if single and isinstance(revision, int) else None,
        "idempotency_key": submission.idempotency_key,
        "body": body_of(body),
        "state": "accepted",
        "publishes": 0,
        "accepted_at": now,
        "next_publish_at": due_at,
    }


def _known_ids(connection: sa.Connection, submissions: Sequence[Submission]) -> dict[str, str]:
    """Under which id each of these was accepted before, by the id that it brought."""
    ids: dict[str, str] = {}
    for some in portions(submissions):
        keyed = {
            (as_key(s.source), as_key(s.idempotency_key)): as_key(s.id) for s in some if s.idempotency_key is not None
        }
        key = (intake.c.source, intake.c.idempotency_key)
        rows = connection.execute(sa.select(*key, intake.c.id).where(among(key, keyed.keys(), by=key)))
        ids |= {keyed[source, name]: id_ for source, name, id_ in rows}
    return ids


def _claim(
    connection: sa.Connection, states: Sequence[State], queue: str, *, now: datetime, until: datetime, limit: int
) -> list[Due]:
    due = (
        sa.select(intake.c.id)
        .where(intake.c.state.in_(states), intake.c.queue == queue, intake.c.next_publish_at <= now)
        .order_by(intake.c.next_publish_at, intake.c.id)
        .limit(limit)
        # Other relays go on with what we leave. A CTE: PostgreSQL may run a plain subquery more than once.
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    state = sa.case((intake.c.state == "postponed", "accepted"), else_=intake.c.state)
    claim = sa.update(intake).where(intake.c.id.in_(sa.select(due.c.id))).values(state=state, next_publish_at=until)
    columns = (intake.c.id, intake.c.task, intake.c.queue, intake.c.body, intake.c.publishes, intake.c.accepted_at)
    rows = connection.execute(claim.returning(*columns)).all()
    return [
        Due(id=row.id, task=row.task, queue=row.queue, message=message_in(row.body), publishes=row.publishes)
        for row in sorted(rows, key=lambda row: (row.accepted_at, row.id))
        if row.body is not None
    ]


def _locked(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Those of these keys that are not finished, and stay so until the transaction ends."""
    query = sa.select(intake.c.id).where(intake.c.state.in_(UNFINISHED)).order_by(intake.c.id).with_for_update()
    return {id_ for some in portions(ids) for id_ in connection.execute(query.where(intake.c.id.in_(some))).scalars()}


def _in_order(keys: Sequence[str]) -> sa.Select[tuple[str]]:
    """Locks the rows in the order of their ids: two processes that change the same ones cannot deadlock."""
    return sa.select(intake.c.id).where(intake.c.id.in_(keys)).order_by(intake.c.id).with_for_update()


def _letter(due: Due, reason: str, now: datetime) -> dict[str, Any]:
    return {
        "id": due.id,
        "task": due.task,
        "queue": due.queue,
        "reason": reason,
        "attempts": due.publishes,
        "payload": json.dumps(due.message, ensure_ascii=False),
        "parked_at": now,
    }
