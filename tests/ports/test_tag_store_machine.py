"""Whatever is accepted, edited, duplicated, reordered and erased, a TagStore holds the newest revision it has seen of
each document, and nothing of one that was erased."""

import os
from collections.abc import Iterator
from itertools import count
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ledger.database import Database
from tagging.documents import Document
from tests.answers import stored
from tests.ports.tag_stores import OpenStore, in_database, in_memory
from workers.ports import Stored

DOCUMENTS = ("ticket", "comment", "other")
THOROUGH = os.environ.get("CI") == "true"
EXTENT = settings(
    max_examples=500 if THOROUGH else 25,
    stateful_step_count=50 if THOROUGH else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class TagStoreMachine(RuleBasedStateMachine):
    """Tasks wait in a queue that delivers in any order and more than once."""

    opened: ClassVar[OpenStore]
    _runs: ClassVar[Iterator[int]] = count()

    @initialize()
    def begin(self) -> None:
        # References of this run only: the store outlives it.
        self.prefix = f"{next(self._runs)}/"
        self.latest = dict.fromkeys(DOCUMENTS, 0)
        self.waiting: list[Stored] = []
        self.delivered: list[Stored] = []
        self.newest: dict[str, int] = {}
        self.erased: set[str] = set()

    @rule(document=st.sampled_from(DOCUMENTS), step=st.integers(1, 3))
    def edit(self, document: str, step: int) -> None:
        self.latest[document] += step
        self.waiting.append(self._answered(document))

    @rule(document=st.sampled_from(DOCUMENTS))
    def ask_again(self, document: str) -> None:
        self.waiting.append(self._answered(document, task_id=f"again-{len(self.delivered) + len(self.waiting)}"))

    @rule(document=st.sampled_from(DOCUMENTS), age=st.integers(1, 3))
    def edit_that_was_long_on_its_way(self, document: str, age: int) -> None:
        revision = max(0, self.latest[document] - age)
        self.waiting.append(self._answered(document, revision=revision))

    @rule(data=st.data(), most=st.integers(1, 6))
    def deliver_in_any_order(self, data: st.DataObject, most: int) -> None:
        self._deliver(data.draw(st.permutations(self.waiting), label="order")[:most])

    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        if self.delivered:
            self._deliver(data.draw(st.lists(st.sampled_from(self.delivered), max_size=4), label="duplicates"))

    @rule(document=st.sampled_from(DOCUMENTS))
    def erase(self, document: str) -> None:
        self.opened.erase(Document("zendesk", self.prefix + document, "ticket"))
        self.erased.add(document)
        self.newest.pop(document, None)

    @invariant()
    def the_newest_revision_seen_stands_unless_it_was_erased(self) -> None:
        for document in DOCUMENTS:
            standing = [row.revision for row in self.opened.by_ref(self.prefix + document)]
            assert standing == ([self.newest[document]] if document in self.newest else [])

    def _answered(self, document: str, *, task_id: str | None = None, revision: int | None = None) -> Stored:
        revision = self.latest[document] if revision is None else revision
        return stored(self.prefix + document, revision=revision, task_id=task_id)

    def _deliver(self, batch: list[Stored]) -> None:
        refused = self.opened.store.write(batch)
        assert {document.ref.removeprefix(self.prefix) for document in refused} == {
            self._name(one) for one in batch if self._name(one) in self.erased
        }
        for one in batch:
            if one in self.waiting:
                self.waiting.remove(one)
            self.delivered.append(one)
            if (document := self._name(one)) not in self.erased:
                self.newest[document] = max(one.task.revision, self.newest.get(document, 0))

    def _name(self, one: Stored) -> str:
        return one.task.ref.removeprefix(self.prefix)


def machine_over(opened: OpenStore) -> type[TagStoreMachine]:
    return type("Machine", (TagStoreMachine,), {"opened": opened})


def test_in_memory():
    run_state_machine_as_test(machine_over(in_memory()), settings=EXTENT)


@pytest.mark.timeout(900)  # 500 examples of 50 steps in CI
def test_in_sqlite(sqlite_database: Database):
    run_state_machine_as_test(machine_over(in_database(sqlite_database)), settings=EXTENT)


@pytest.mark.timeout(900)
def test_in_postgres(postgres_database: Database):
    run_state_machine_as_test(machine_over(in_database(postgres_database)), settings=EXTENT)


class Without:
    """A store in memory that lacks one of its protections."""

    def __init__(self) -> None:
        self.opened = in_memory()

    def write(self, rows: list[Stored], *, done: list[str] | tuple[str, ...] = ()) -> frozenset[Document]:
        return self.opened.store.write(rows, done=done)

    def erase(self, document: Document) -> None:
        self.opened.erase(document)


class WithoutFence(Without):
    def write(self, rows: list[Stored], *, done: list[str] | tuple[str, ...] = ()) -> frozenset[Document]:
        refused: frozenset[Document] = frozenset()
        for one in rows:
            self.opened.store._rows.pop(next((r.key for r in self.opened.by_ref(one.task.ref)), None), None)
            refused |= self.opened.store.write([one], done=done)
        return refused


class WithoutTombstones(Without):
    def erase(self, document: Document) -> None:
        self.opened.erase(document)
        self.opened.store._erased.clear()


@pytest.mark.parametrize("kind", [WithoutFence, WithoutTombstones])
def test_the_machine_sees_what_a_store_lacks(kind: type[Without]):
    lacking = kind()
    opened = OpenStore(lacking, lacking.opened.by_ref, lacking.opened.by_id, lacking.erase)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine_over(opened),
            settings=settings(EXTENT, max_examples=300, database=None, phases=[Phase.generate], derandomize=True),
        )
