"""The job file: what was read, what is asked, and what was answered, in one SQLite file a job.

    rows ──▶ items ──▶ chunks
    (one a record)  (one a question)  (one a message: ready ──▶ sent ──▶ done)
               └─────▶ orders
                       (one an answer that is written back)

Every step is one transaction, so a process that is killed leaves a job between two steps. A window of rows is read,
deduplicated and cut into chunks in the transaction that moves the cursor: read again, it comes out the same.

Plain ``sqlite3``: one writer, one file, five statements, two million rows.
"""

import fcntl
import json
import os
import sqlite3
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

from producers.backfill.question import Item
from producers.backfill.rows import Rejected, Row
from tagging.errors import JobRefused

Wish = Literal["run", "pause", "cancel"]
Outcome = Literal["tagged", "cached", "failed"]

_MESSAGE: Final = uuid.UUID("0b0f2a1e-6c1d-4b8e-9a57-3d1c5e7f9b24")  # any of our own
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, columns TEXT, raw TEXT, item INTEGER, reason TEXT);
CREATE TABLE IF NOT EXISTS items (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, source TEXT NOT NULL, ref TEXT NOT NULL, revision INTEGER NOT NULL,
    kind TEXT NOT NULL, text TEXT, chunk INTEGER, outcome TEXT, answer TEXT, before TEXT, cache TEXT, tokens INTEGER,
    computed INTEGER
);
CREATE INDEX IF NOT EXISTS ix_items_chunk ON items (chunk);
CREATE TABLE IF NOT EXISTS chunks (
    n INTEGER PRIMARY KEY, attempt INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'ready'
);
CREATE TABLE IF NOT EXISTS orders (item INTEGER PRIMARY KEY, id TEXT NOT NULL, task TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS ix_orders_task ON orders (task);
CREATE INDEX IF NOT EXISTS ix_chunks_state ON chunks (state) WHERE state != 'done';
"""
_SUFFIX: Final = ".job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Items that travel in one message."""

    n: int
    attempt: int
    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of an item. Either an answer or a reason."""

    outcome: Outcome
    answer: Mapping[str, Any] | None = None
    reason: str | None = None
    cache: str | None = None
    """Of a worker's answer: which of its caches knew all of it or some, or ``none``."""
    tokens: int = 0
    """That the device computed for it."""
    computed: int = 0
    """Pairs that the model computed for it."""
    order: "Ordered | None" = None
    """By which its tags are written back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """An order to write tags back, as a job knows it."""

    id: str
    task_id: str
    """Whose answer it is about: the item's own, or that of whoever was answered before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Records that were read together, and what to do about them."""

    rows: Sequence[tuple[Row, str]]
    """Each with the id of its item."""
    rejected: Sequence[Rejected]
    known: Mapping[str, tuple[Item, Settled]]
    """Items that are answered already."""
    chunks: Sequence[Sequence[Item]]
    before: Mapping[str, Mapping[str, Any]]
    """What stands in the ledger for some of these items, and would be replaced."""
    last: bool
    """Whether the source has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows by what became of them. A job that is done has no ``open`` ones."""

    read: int
    tagged: int
    cached: int
    failed: int
    rejected: int
    items: int
    """Questions that these rows came to: the rest are rows that share one."""
    asked: int
    """Those of them that workers were asked."""

    @property
    def open(self) -> int:
        """Rows whose item is not answered yet."""
        return self.read - self.tagged - self.cached - self.failed - self.rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An item that workers were asked, without its text."""

    item: Item
    is_tagged: bool
    """Whether the job file has the answer."""
    before: Mapping[str, Any] | None
    """What stood in the ledger then, and would be replaced."""


class JobFile:
    """One job. The process that runs it holds its lock; others may look, and say what they wish."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        if new:
            path.chmod(0o600)  # it holds customers' texts
        self._db.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last steps, never the file; a killed process loses nothing.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO facts VALUES ('id', ?)", (str(uuid.uuid4()),))
        self._db.execute("INSERT OR IGNORE INTO facts VALUES ('begun_at', ?)", (datetime.now(UTC).isoformat(),))
        self._id = self.fact("id")

    @classmethod
    def create(cls, folder: Path, name: str) -> Self:
        """The job of this name, which is made if there is none."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(_path(folder, name))

    @classmethod
    def open(cls, folder: Path, name: str) -> Self:
        """The job of this name.

        Raises:
            JobRefused: There is none; says which there are.
        """
        path = _path(folder, name)
        if not path.exists():
            raise JobRefused(f"no job {name!r} in {folder}; there are: {', '.join(names_in(folder)) or 'none'}")
        return cls(path)

    @property
    def name(self) -> str:
        """The job's name."""
        return self.path.name.removesuffix(_SUFFIX)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else runs this job meanwhile; the system lets go when the process ends, however it ends.

        Raises:
            JobRefused: Somebody else does.
        """
        with self.path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise JobRefused(f"job {self.name!r} is being run by another process; pause it there first") from None
            yield

    # facts

    def describe(self, spec: Mapping[str, str]) -> None:
        """Keep what the job is about, the first time.

        Raises:
            JobRefused: It was about something else; says what differs.
        """
        for name, value in spec.items():
            known = self.fact(name)
            if known is not None and known != value:
                raise JobRefused(
                    f"job {self.name!r} was begun with another {name}; give this one another name with --job, "
                    f"or cancel and remove {self.path}"
                )
        with self._step():
            self._db.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", spec.items())

    def fact(self, name: str) -> str | None:
        """A fact about the job."""
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def state(self, name: str, value: str) -> None:
        """Set a fact."""
        with self._step():
            self._set(name, value)

    @property
    def begun_at(self) -> datetime:
        """When the job was made."""
        return datetime.fromisoformat(self.fact("begun_at") or "")

    @property
    def wish(self) -> Wish:
        """What somebody wants the process that runs this job to do."""
        match self.fact("wish"):
            case "pause":
                return "pause"
            case "cancel":
                return "cancel"
            case _:
                return "run"

    @property
    def cursor(self) -> int:
        """The number of the last record that was read; 0 before the first."""
        return int(self.fact("cursor") or 0)

    @property
    def is_read(self) -> bool:
        """Whether the source has no more records."""
        return self.fact("is_read") == "yes"

    @property
    def is_done(self) -> bool:
        """Whether every record was read and every item is answered."""
        return self.is_read and not self._db.execute("SELECT 1 FROM chunks WHERE state != 'done' LIMIT 1").fetchone()

    # steps

    def unknown(self, ids: Sequence[str]) -> set[str]:
        """Those of these ids that are no item so far."""
        known: set[str] = set()
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            marks = ",".join("?" * len(some))
            known.update(id_ for (id_,) in self._db.execute(f"SELECT id FROM items WHERE id IN ({marks})", some))  # noqa: S608  # question marks
        return set(ids) - known

    def add(self, window: Window) -> None:
        """Keep a window: its rows, items and chunks, and how far the source was read."""
        numbers = [row.number for row, _ in window.rows] + [one.number for one in window.rejected]
        with self._step():
            for item, settled in window.known.values():
                self._insert_item(item, chunk=None, before=None, settled=settled)
            for items in window.chunks:
                chunk = self._db.execute("INSERT INTO chunks DEFAULT VALUES").lastrowid
                for item in items:
                    self._insert_item(item, chunk=chunk, before=window.before.get(item.id), settled=None)
            self._db.executemany(
                "INSERT INTO rows (number, columns, item) VALUES (?, ?, (SELECT n FROM items WHERE id = ?))",
                ((row.number, _json(row.columns), id_) for row, id_ in window.rows),
            )
            self._db.executemany(
                "INSERT INTO rows (number, columns, raw, reason) VALUES (?, ?, ?, ?)",
                ((r.number, _json_or_none(r.columns), _json_or_none(r.raw), r.reason) for r in window.rejected),
            )
            if numbers:
                self._set("cursor", str(max(numbers)))
            if window.last:
                self._set("is_read", "yes")

    def chunks(self, state: Literal["ready", "sent"], *, limit: int = -1) -> list[Chunk]:
        """The chunks in this state, in their order."""
        rows = self._db.execute("SELECT n, attempt FROM chunks WHERE state = ? ORDER BY n LIMIT ?", (state, limit))
        return [Chunk(n=n, attempt=attempt, message_id=self._message_id(n, attempt)) for n, attempt in rows]

    def items(self, chunk: Chunk) -> list[Item]:
        """The items of a chunk, in the order in which its message holds them."""
        rows = self._db.execute(
            "SELECT id, text, source, ref, revision, kind FROM items WHERE chunk = ? ORDER BY n", (chunk.n,)
        )
        return [
            Item(id=id_, text=text, source=source, ref=ref, revision=revision, kind=kind)
            for id_, text, source, ref, revision, kind in rows
        ]

    def sent(self, chunks: Sequence[Chunk]) -> None:
        """These are accepted and will be answered."""
        with self._step():
            self._db.executemany("UPDATE chunks SET state = 'sent' WHERE n = ?", ((chunk.n,) for chunk in chunks))

    def send_again(self, chunk: Chunk) -> None:
        """The answers to this chunk were lost: ask once more, in a message of another id."""
        with self._step():
            self._db.execute("UPDATE chunks SET state = 'ready', attempt = attempt + 1 WHERE n = ?", (chunk.n,))

    def settle(self, chunk: Chunk, settled: Sequence[Settled]) -> None:
        """What became of the items of this chunk, in their order. Their texts are kept in the rows only."""
        ns = [n for (n,) in self._db.execute("SELECT n FROM items WHERE chunk = ? ORDER BY n", (chunk.n,))]
        with self._step():
            self._db.executemany(
                "UPDATE items SET outcome = ?, answer = ?, cache = ?, tokens = ?, computed = ?, text = NULL "
                "WHERE n = ?",
                (
                    (one.outcome, _settled_json(one), one.cache, one.tokens, one.computed, n)
                    for n, one in zip(ns, settled, strict=True)
                ),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO orders VALUES (?, ?, ?)",
                ((n, one.order.id, one.order.task_id) for n, one in zip(ns, settled, strict=True) if one.order),
            )
            self._db.execute("UPDATE chunks SET state = 'done' WHERE n = ?", (chunk.n,))

    # what came of it

    @property
    def rows(self) -> int:
        """How many records were read."""
        (rows,) = self._db.execute("SELECT count(*) FROM rows").fetchone()
        return int(rows)

    def waiting_rows(self, *, after: int = 0) -> dict[int, int]:
        """How many of the rows behind the one of this number wait for the answers of a chunk, by its number."""
        rows = self._db.execute(
            "SELECT chunk, count(*) FROM rows JOIN items ON items.n = rows.item "
            "WHERE rows.number > ? AND outcome IS NULL GROUP BY chunk",
            (after,),
        )
        return dict(rows.fetchall())

    def counts(self) -> Counts:
        """Rows by what became of them."""
        by = dict(
            self._db.execute(
                "SELECT CASE WHEN rows.reason IS NOT NULL THEN 'rejected' ELSE coalesce(outcome, 'open') END, count(*) "
                "FROM rows LEFT JOIN items ON items.n = rows.item GROUP BY 1"
            )
        )
        items, asked = self._db.execute("SELECT count(*), count(chunk) FROM items").fetchone()
        return Counts(
            read=sum(by.values()),
            tagged=by.get("tagged", 0),
            cached=by.get("cached", 0),
            failed=by.get("failed", 0),
            rejected=by.get("rejected", 0),
            items=items,
            asked=asked,
        )

    def answered(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The columns of each row that has an answer, and the answer, in the order of the source."""
        rows = self._db.execute(
            "SELECT columns, answer FROM rows JOIN items ON items.n = rows.item "
            "WHERE outcome IN ('tagged', 'cached') ORDER BY number"
        )
        return ((json.loads(columns), json.loads(answer)) for columns, answer in rows)

    def refused(self) -> Iterator[Rejected]:
        """The rows that have no answer, rejected and failed ones, in the order of the source."""
        rows = self._db.execute(
            "SELECT number, columns, raw, coalesce(reason, answer) FROM rows LEFT JOIN items ON items.n = rows.item "
            "WHERE reason IS NOT NULL OR outcome = 'failed' ORDER BY number"
        )
        for number, columns, raw, reason in rows:
            yield Rejected(
                number=number,
                columns=columns and json.loads(columns),
                raw=raw and json.loads(raw),
                reason=reason,
            )

    def histogram(self) -> dict[str, int]:
        """How many rows got each label as a tag, most frequent first."""
        rows = self._db.execute(
            "SELECT json_extract(tag.value, '$.label'), count(*) FROM rows JOIN items ON items.n = rows.item, "
            "json_each(items.answer, '$.tags') AS tag WHERE outcome IN ('tagged', 'cached') "
            "GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return dict(rows.fetchall())

    def items_by_outcome(self) -> Counter[str]:
        """How many questions were ``tagged``, ``cached``, ``failed``, or are ``open``."""
        return Counter(dict(self._db.execute("SELECT coalesce(outcome, 'open'), count(*) FROM items GROUP BY 1")))

    def caches(self) -> dict[str, int]:
        """How many questions each of the workers' caches answered, wholly or in part; ``none``: the model alone."""
        rows = self._db.execute("SELECT cache, count(*) FROM items WHERE cache IS NOT NULL GROUP BY 1 ORDER BY 1")
        return dict(rows.fetchall())

    def tokens(self) -> int:
        """Tokens that devices computed for this job."""
        (tokens,) = self._db.execute("SELECT coalesce(sum(tokens), 0) FROM items").fetchone()
        return int(tokens)

    def computed(self) -> int:
        """Pairs that models computed for this job."""
        (computed,) = self._db.execute("SELECT coalesce(sum(computed), 0) FROM items").fetchone()
        return int(computed)

    def asked(self) -> Iterator[Asked]:
        """The items that workers were asked, or would have been next."""
        rows = self._db.execute(
            "SELECT id, source, ref, revision, kind, outcome, before FROM items WHERE chunk IS NOT NULL ORDER BY n"
        )
        for id_, source, ref, revision, kind, outcome, before in rows:
            item = Item(id=id_, text="", source=source, ref=ref, revision=revision, kind=kind)
            yield Asked(item=item, is_tagged=outcome == "tagged", before=before and json.loads(before))

    def orders(self) -> Iterator[Ordered]:
        """The orders by which tags of this job are written back."""
        rows = self._db.execute("SELECT id, task FROM orders ORDER BY item")
        return (Ordered(id=id_, task_id=task_id) for id_, task_id in rows)

    def ordered(self, task_ids: Collection[str]) -> dict[str, str]:
        """The id of the order about the answer of each of these tasks, where this job has one."""
        marks = ",".join("?" * len(task_ids))
        return dict(self._db.execute(f"SELECT task, id FROM orders WHERE task IN ({marks})", [*task_ids]))  # noqa: S608  # question marks

    def asked_among(self, ids: Collection[str]) -> set[str]:
        """Those of these ids that are items of this job which workers were asked."""
        marks = ",".join("?" * len(ids))
        query = f"SELECT id FROM items WHERE chunk IS NOT NULL AND id IN ({marks})"  # noqa: S608  # question marks
        return {id_ for (id_,) in self._db.execute(query, [*ids])}

    @contextmanager
    def _step(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _set(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _insert_item(
        self, item: Item, *, chunk: int | None, before: Mapping[str, Any] | None, settled: Settled | None
    ) -> None:
        n = self._db.execute(
            "INSERT INTO items (id, source, ref, revision, kind, text, chunk, outcome, answer, before) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                item.id,
                item.source,
                item.ref,
                item.revision,
                item.kind,
                item.text if settled is None else None,
                chunk,
                settled and settled.outcome,
                settled and _settled_json(settled),
                before and _json(before),
            ),
        ).lastrowid
        if settled is not None and settled.order is not None:
            self._db.execute("INSERT INTO orders VALUES (?, ?, ?)", (n, settled.order.id, settled.order.task_id))

    def _message_id(self, n: int, attempt: int) -> str:
        """Of this chunk of this job: the same after a restart, another for another job."""
        return str(uuid.uuid5(_MESSAGE, f"{self._id}/{n}/{attempt}"))


def names_in(folder: Path) -> list[str]:
    """The jobs of this folder."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder.glob(f"*{_SUFFIX}"))


def _path(folder: Path, name: str) -> Path:
    if not name or name != os.path.basename(name) or name.startswith("."):  # noqa: PTH119  # a name, not a path
        raise JobRefused(f"--job: {name!r} cannot be the name of a file; use letters, digits, - and _")
    return folder / f"{name}{_SUFFIX}"


def _settled_json(settled: Settled) -> str | None:
    return settled.reason if settled.answer is None else _json(settled.answer)


def _json_or_none(value: Any) -> str | None:
    return None if value is None else _json(value)


def _json(value: Any) -> str:
    # ASCII: a lone surrogate, which is how bytes that are no text stand in a row, survives.
    return json.dumps(value, default=str, separators=(",", ":"))
