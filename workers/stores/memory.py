"""The ports in this process's memory, with the same contracts as the real ones: for tests and for trying things out."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from threading import Lock

from ledger.tags import TagKey, TagRow, supersedes
from tagging.documents import Document
from workers.metrics import Metric, series_of
from workers.ports import Claimed, DeadLetter, KnownPairs, Logit, Sought, Stored, TextKey, WantedPairs
from workers.stores.logits import keepable


class MemoryPairCache:
    """A ``SharedPairCache`` that forgets nothing, claims included; pipelines share it by being given the same one."""

    is_up = True

    def __init__(self) -> None:
        self._known: defaultdict[TextKey, dict[bytes, Logit]] = defaultdict(dict)
        self._claims: dict[tuple[TextKey, bytes], str] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return sum(map(len, self._known.values()))

    def get_many(self, wanted: WantedPairs) -> KnownPairs:
        """What is known of what is wanted."""
        found = {key: {d: self._known[key][d] for d in wanted[key] if d in self._known[key]} for key in wanted}
        return {key: logits for key, logits in found.items() if logits}

    def put_many(self, pairs: KnownPairs) -> None:
        """Remember."""
        for key, logits in pairs.items():
            self._known[key].update({digest: logit for digest, logit in logits.items() if keepable(logit)})

    def forget(self, keys: Collection[TextKey]) -> None:
        """Know nothing of these texts any more."""
        for key in keys:
            self._known.pop(key, None)

    def claim_many(self, wanted: WantedPairs, *, claimant: str, lifetime_ms: int) -> Claimed:  # noqa: ARG002  # for ever
        """What is known, and a claim on the rest unless others hold one."""
        promised: defaultdict[TextKey, set[bytes]] = defaultdict(set)
        with self._lock:
            known = self.get_many(wanted)
            for key, digests in wanted.items():
                for digest in set(digests) - set(known.get(key, ())):
                    if self._claims.setdefault((key, digest), claimant) != claimant:
                        promised[key].add(digest)
        return Claimed(known, dict(promised))


class MemoryMeter:
    """A ``Meter`` that adds up; of a histogram it keeps how many values there were and their sum."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._values: defaultdict[tuple[str, ...], int] = defaultdict(int)

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Count."""
        self._note(metric, [amount], labels, kind="counter")

    def observe(self, metric: Metric, *values: float, **labels: str) -> None:
        """Note each value."""
        self._note(metric, values, labels, kind="histogram")

    def total(self, metric: Metric, **labels: str) -> float:
        """What was counted, or the sum of the values, over all series with these labels."""
        return self._sum(self._totals, metric, labels)

    def values(self, metric: Metric, **labels: str) -> int:
        """How often something was noted, over all series with these labels."""
        return int(self._sum(self._values, metric, labels))

    def _note(self, metric: Metric, amounts: Sequence[float], labels: Mapping[str, str], *, kind: str) -> None:
        assert metric.kind == kind, f"{metric.name} is a {metric.kind}"
        key = (metric.name, *series_of(metric, labels))
        with self._lock:
            self._totals[key] += sum(amounts)
            self._values[key] += len(amounts)

    @staticmethod
    def _sum(figures: Mapping[tuple[str, ...], float], metric: Metric, labels: Mapping[str, str]) -> float:
        wanted = [labels.get(name) for name in metric.labels]
        return sum(
            figure
            for (name, *values), figure in figures.items()
            if name == metric.name and all(w in (None, value) for w, value in zip(wanted, values, strict=True))
        )


class MemoryTagStore:
    """A ``TagStore`` with the ledger's fence."""

    def __init__(self) -> None:
        self._rows: dict[TagKey, TagRow] = {}
        self._logits: dict[TagKey, tuple[TextKey, Mapping[bytes, Logit]]] = {}
        self._erased: set[Document] = set()
        self.done: set[str] = set()
        """Ids of the messages that were finished."""

    def write(self, rows: Sequence[Stored], *, done: Sequence[str] = ()) -> frozenset[Document]:
        """Store the batch; the erased documents in it."""
        erased = set()
        for stored in rows:
            row = TagRow.of(stored.answer)
            if row.document in self._erased:
                erased.add(row.document)
            elif row.key not in self._rows or supersedes(row, self._rows[row.key]):
                self._rows[row.key] = row
                self._logits[row.key] = (stored.key, stored.logits)
        self.done.update(done, (stored.task_id for stored in rows))
        return frozenset(erased)

    def known(self, sought: Sequence[Sought]) -> KnownPairs:
        """What was kept with answers that stand: the pairs of the same documents, texts and model."""
        known: defaultdict[TextKey, dict[bytes, Logit]] = defaultdict(dict)
        for document, text, hypotheses in sought:
            for key, row in self._rows.items():
                of, logits = self._logits[key]
                if (row.document, of) == (document, text):
                    known[text].update({d: logits[d] for d in hypotheses if d in logits and keepable(logits[d])})
        return {text: logits for text, logits in known.items() if logits}

    def erase(self, document: Document) -> None:
        """Remove the document, and refuse it from now on."""
        self._erased.add(document)
        self._rows = {key: row for key, row in self._rows.items() if row.document != document}

    def by_id(self, task_id: str) -> list[TagRow]:
        """What stands as the answer to the task of this id."""
        return [row for row in self._rows.values() if row.task_id == task_id]

    def by_ref(self, ref: str, source: str | None = None) -> list[TagRow]:
        """What stands for the document of this reference."""
        return [row for row in self._rows.values() if row.ref == ref and source in (None, row.source)]


class MemoryCrashes:
    """``Crashes`` in this process."""

    def __init__(self) -> None:
        self._runs: Counter[str] = Counter()

    def begin(self, message_id: str) -> int:
        """How many runs of this message have begun without an end, this one included."""
        self._runs[message_id] += 1
        return self._runs[message_id]

    def end(self, message_ids: Sequence[str]) -> None:
        """Forget the counts of these messages."""
        for message_id in message_ids:
            del self._runs[message_id]


class MemoryDeadLetters:
    """``DeadLetters`` in the order in which they were parked."""

    def __init__(self) -> None:
        self._letters: dict[str, DeadLetter] = {}

    def park(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters; the same id again replaces the earlier one."""
        for letter in letters:
            self._letters.pop(letter.id, None)
            self._letters[letter.id] = letter

    @property
    def parked(self) -> list[DeadLetter]:
        """What waits, the oldest first."""
        return list(self._letters.values())
