"""Tags on their way out: what is to be written back, and which tags on which tickets are our own.

An *order* asks for the tags of one answer to be written to one account. It names the answer and holds no text; its id
follows from what it names, so that the same answer asks once. What it leads to is kept as *own tags*: a row for each
tag that a document's label set wants on a ticket and that we have put there.

A row is written before the system is called (``intended_at``) and confirmed after (``set_at``): whoever dies between
the two leaves a trace by which the next one knows the tag for ours. ``removed_at`` says when we took it off, or first
saw that somebody else had; from then on it is not ours.
"""

import hashlib
import json
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from ledger.database import Database
from ledger.fence import erased_among
from ledger.intake import FINISHED, UNFINISHED, Submission, ask, finish, postpone
from ledger.lookup import portions
from ledger.schema import as_key, intake, own_notes, own_tags, tags
from tagging.answers import Answer
from tagging.documents import Document
from tagging.errors import InvalidMessage
from tagging.messages import WriteBack
from tagging.names import WRITE_BACK

if TYPE_CHECKING:
    from ledger.tags import TagRow

_ORDER: Final = uuid.UUID("d2b6f0f4-7f0c-4f60-8f7e-3d5d1d1f5c02")  # any of our own


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A ``tagmill.write_back``: put the tags of this answer where agents look."""

    account: str
    mode: str
    """``suggest`` where the sender asked for no more than that, whatever the account's policy says."""
    source: str
    ref: str
    kind: str
    revision: int
    label_set: str | None
    label_set_digest: str
    multi_label: bool
    task_id: str
    fingerprint: str
    """Of the model that answered."""
    attempts: int = 0
    """How often the system was called for it in vain."""

    @classmethod
    def about(cls, row: "TagRow", write_back: WriteBack) -> Self:
        """The order for this answer."""
        return cls(
            account=write_back.system,
            mode=write_back.mode,
            source=row.source,
            ref=row.ref,
            kind=row.kind,
            revision=row.revision,
            label_set=row.label_set,
            label_set_digest=row.label_set_digest,
            multi_label=row.multi_label,
            task_id=row.task_id,
            fingerprint=row.fingerprint,
        )

    @classmethod
    def read(cls, body: object) -> Self:
        """The order in a message's body.

        Raises:
            InvalidMessage: It is none.
        """
        try:
            return TypeAdapter(cls).validate_python(body)  # what a newer version has added is ignored
        except ValidationError as e:
            fields = sorted({str(problem["loc"][0]) for problem in e.errors() if problem["loc"]})
            wrong = f"with a wrong or missing {', '.join(fields)}" if fields else "that is no JSON object"
            raise InvalidMessage(f"message: an order to write back {wrong}; only workers send these") from None

    @property
    def document(self) -> Document:
        """What the tags are about."""
        return Document(self.source, self.ref, self.kind)

    @property
    def body(self) -> dict[str, Any]:
        """The order as a message."""
        return asdict(self)

    @property
    def submission(self) -> Submission:
        """The order as the intake takes it."""
        names = (self.account, *self.document, self.revision, self.label_set_digest, self.multi_label, self.fingerprint)
        return Submission(id=str(uuid.uuid5(_ORDER, json.dumps(names))), task=WRITE_BACK, message=self.body)

    def tried(self) -> Self:
        """The order after one more attempt."""
        return replace(self, attempts=self.attempts + 1)

    def afresh(self) -> Self:
        """The order as it was before any attempt, for whoever requeues it."""
        return replace(self, attempts=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTag:
    """A tag on a ticket that we have set, or are about to, for one document and label set."""

    account: str
    ticket: str
    tag: str
    source: str
    ref: str
    kind: str
    label_set: str
    revision: int
    task_id: str
    set_at: datetime | None = None
    removed_at: datetime | None = None

    @classmethod
    def of(cls, order: Order, ticket: str, tag: str) -> Self:
        """The row by which this order's tag on this ticket is known."""
        # As stored: what is compared with a row that was read must be equal to it.
        return cls(
            account=as_key(order.account),
            ticket=as_key(ticket),
            tag=as_key(tag),
            source=as_key(order.source),
            ref=as_key(order.ref),
            kind=order.kind,
            label_set=order.label_set or "",
            revision=order.revision,
            task_id=order.task_id,
        )

    @property
    def id(self) -> str:
        """What it is unique by, as a digest."""
        return _digest(self.account, self.ticket, self.tag, self.source, self.ref, self.kind, self.label_set)

    def is_for(self, order: Order) -> bool:
        """Whether it is the order's document and label set that want it."""
        return self.id == OwnTag.of(order, self.ticket, self.tag).id


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the ledger says about an order now."""

    is_finished: bool
    answer: Answer | None
    """None where another answer stands by now, or none."""


Fate = Literal["done", "superseded"]


class WriteBackLedger:
    """Orders and own tags, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def look_up(self, id_: str, order: Order) -> Standing:
        """Whether the order is finished, and what is to be written.

        Raises:
            StoreUnavailable: The database failed.
        """
        with self._database.transaction() as connection:
            state = connection.execute(sa.select(intake.c.state).where(intake.c.id == id_)).scalar_one_or_none()
            answers = sa.select(tags.c.answer).where(_answers(order), ~_is_overtaken(order))
            answer = connection.execute(answers).scalar_one_or_none()
        return Standing(is_finished=state in FINISHED, answer=answer)

    def ask(self, orders: Collection[Order], *, now: datetime) -> None:
        """Have these carried out, but none about an erased document; one that was asked for before is not again.

        Tagging workers ask in the transaction that stores an answer. This is for answers that stand already.

        Raises:
            StoreUnavailable: Nothing is known to be kept; ask again.
        """
        with self._database.writing() as connection:
            erased = erased_among(connection, [order.document for order in orders])
            wanted = [order.submission for order in orders if order.document not in erased]
            ask(connection, self._database.insert(intake), wanted, now)

    def withdraw(self, ids: Collection[str], *, since: datetime, now: datetime) -> tuple[int, set[str]]:
        """Let orders go that nobody has carried out so far; how many, and which of these ids are somebody else's.

        Args:
            ids: Of orders.
            since: One that was asked for before this moment is somebody else's, and is left alone.
            now: When.

        Raises:
            StoreUnavailable: Nothing was changed.
        """
        before = sa.select(intake.c.id).where(intake.c.accepted_at < since)
        waiting = sa.select(intake.c.id).where(intake.c.accepted_at >= since, intake.c.state.in_(UNFINISHED))
        others: set[str] = set()
        withdrawn = 0
        with self._database.writing() as connection:
            for some in portions(sorted(ids)):
                others.update(connection.execute(before.where(intake.c.id.in_(some))).scalars())
                mine = connection.execute(waiting.where(intake.c.id.in_(some))).scalars().all()
                finish(connection, dict.fromkeys(mine, "taken back"), "superseded", now)
                withdrawn += len(mine)
        return withdrawn, others

    def on_ticket(self, account: str, ticket: str) -> list[OwnTag]:
        """Every tag that was ever ours on this ticket, by tag.

        Raises:
            StoreUnavailable: The database failed.
        """
        return self._select(sa.and_(own_tags.c.account == account, own_tags.c.ticket == ticket))

    def intend(self, order: Order, wanted: Collection[OwnTag], *, now: datetime) -> bool:
        """Keep that we are about to set these tags; False where the document was erased: then nothing may be set.

        Raises:
            StoreUnavailable: Nothing is known to be kept; the system must not be called.
        """
        insert = self._database.insert(own_tags)
        # What it was before it was taken off is over.
        changed = {c.name: insert.excluded[c.name] for c in own_tags.c if not c.primary_key}
        upsert = insert.on_conflict_do_update(index_elements=[own_tags.c.id], set_=changed)
        with self._database.writing() as connection:
            if erased_among(connection, [order.document]):
                return False
            if wanted:
                connection.execute(upsert, [_values(own, now) for own in _in_order(wanted)])
        return True

    def intend_note(self, order: Order, *, now: datetime) -> bool:
        """Keep that agents are about to be told; False where they were, or the document was erased.

        Raises:
            StoreUnavailable: Nothing is known to be kept; the system must not be called.
        """
        row = {"id": _note(order), **_document(order), "noted_at": now}
        with self._database.writing() as connection:
            if erased_among(connection, [order.document]):
                return False
            insert = self._database.insert(own_notes).on_conflict_do_nothing().returning(own_notes.c.id)
            return connection.execute(insert, row).first() is not None

    def withdraw_note(self, order: Order) -> None:
        """Forget that agents were about to be told: the system would not take it.

        Raises:
            StoreUnavailable: The database failed.
        """
        with self._database.writing() as connection:
            connection.execute(sa.delete(own_notes).where(own_notes.c.id == _note(order)))

    def finish(
        self,
        id_: str,
        order: Order,
        fate: Fate,
        *,
        now: datetime,
        reason: str | None = None,
        held: Collection[OwnTag] = (),
        gone: Collection[OwnTag] = (),
    ) -> None:
        """Finish the order, in the transaction in which its own tags are confirmed.

        Args:
            id_: Of the order's task.
            order: What was carried out.
            fate: How it ends.
            now: When.
            reason: Why, where it was not done.
            held: Tags that the ticket carries as ours for this order.
            gone: Tags that were ours and that the ticket carries no longer.

        Raises:
            StoreUnavailable: Nothing is known to be kept; the order may be carried out again.
        """
        with self._database.writing() as connection:
            if not erased_among(connection, [order.document]):
                self._confirm(connection, held, now)
            _mark_removed(connection, gone, now)
            finish(connection, {id_: reason}, fate, now)

    def postpone(self, id_: str, order: Order, *, until: datetime) -> bool:
        """Have the order published again at that time; False where the intake does not hold it, or it is finished.

        Raises:
            StoreUnavailable: Nothing was changed.
        """
        with self._database.writing() as connection:
            return postpone(connection, id_, message=order.body, until=until)

    def since(self, moment: datetime, *, account: str | None = None) -> list[OwnTag]:
        """Live tags that were first set at this moment or later, by account and ticket.

        A tag that another document or label set had us set before is not among them.

        Raises:
            StoreUnavailable: The database failed.
        """
        of_account = own_tags.c.account == account if account is not None else sa.true()
        live = sa.and_(own_tags.c.set_at.is_not(None), own_tags.c.removed_at.is_(None))
        earlier = own_tags.alias()
        before = sa.exists().where(
            earlier.c.account == own_tags.c.account,
            earlier.c.ticket == own_tags.c.ticket,
            earlier.c.tag == own_tags.c.tag,
            earlier.c.removed_at.is_(None),
            earlier.c.set_at < moment,
        )
        return self._select(sa.and_(own_tags.c.set_at >= moment, live, of_account, ~before))

    def accounts(self) -> list[str]:
        """Every account on whose tickets a tag was ever ours.

        Raises:
            StoreUnavailable: The database failed.
        """
        with self._database.transaction() as connection:
            return list(connection.execute(sa.select(own_tags.c.account).distinct()).scalars())

    def removed(self, taken: Collection[OwnTag], *, now: datetime) -> None:
        """Note that these are no longer on their tickets.

        Raises:
            StoreUnavailable: The database failed.
        """
        with self._database.writing() as connection:
            _mark_removed(connection, taken, now)

    def _confirm(self, connection: sa.Connection, held: Collection[OwnTag], now: datetime) -> None:
        if not held:
            return
        insert = self._database.insert(own_tags)
        new = insert.excluded
        upsert = insert.on_conflict_do_update(
            index_elements=[own_tags.c.id],
            set_={
                "revision": new.revision,
                "task_id": new.task_id,
                "set_at": sa.func.coalesce(own_tags.c.set_at, new.set_at),
                "removed_at": None,
            },
        )
        connection.execute(upsert, [_values(replace(own, set_at=now, removed_at=None), now) for own in _in_order(held)])

    def _select(self, condition: sa.ColumnElement[bool]) -> list[OwnTag]:
        columns = [own_tags.c[name] for name in OwnTag.__dataclass_fields__]
        order = (own_tags.c.account, own_tags.c.ticket, own_tags.c.tag, own_tags.c.id)
        with self._database.transaction() as connection:
            rows = connection.execute(sa.select(*columns).where(condition).order_by(*order)).mappings()
            return [OwnTag(**row) for row in rows]


def _answers(order: Order) -> sa.ColumnElement[bool]:
    """What stands is the very answer that the order is about."""
    return sa.and_(
        tags.c.ref == order.ref,
        tags.c.source == order.source,
        tags.c.kind == order.kind,
        tags.c.label_set_digest == order.label_set_digest,
        tags.c.multi_label == order.multi_label,
        tags.c.revision == order.revision,
        tags.c.task_id == order.task_id,
    )


def _is_overtaken(order: Order) -> sa.ColumnElement[bool]:
    """A newer revision stands under the same label set, of which the labels may have changed meanwhile."""
    newer = tags.alias()
    return sa.exists().where(
        newer.c.ref == order.ref,
        newer.c.source == order.source,
        newer.c.kind == order.kind,
        newer.c.label_set == order.label_set,
        newer.c.revision > order.revision,
    )


def _document(order: Order) -> dict[str, str]:
    return {"source": order.source, "ref": order.ref, "kind": order.kind}


def _values(own: OwnTag, now: datetime) -> dict[str, Any]:
    return {"id": own.id, **asdict(own), "intended_at": now}


def _in_order(rows: Collection[OwnTag]) -> list[OwnTag]:
    """Two workers that write the same rows cannot deadlock."""
    return sorted(rows, key=lambda own: own.id)


def _mark_removed(connection: sa.Connection, rows: Collection[OwnTag], now: datetime) -> None:
    for some in portions(sorted(row.id for row in rows)):
        change = sa.update(own_tags).where(own_tags.c.id.in_(some), own_tags.c.removed_at.is_(None))
        connection.execute(change.values(removed_at=now))


def _note(order: Order) -> str:
    return _digest(order.account, *order.document, order.label_set or "", str(order.revision))


def _digest(*parts: str) -> str:
    h = hashlib.blake2b(digest_size=16, person=b"tagmill.own")
    for part in parts:
        data = as_key(part).encode()
        h.update(len(data).to_bytes(4, "big") + data)
    return h.hexdigest()
