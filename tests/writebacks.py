"""Write-backs for tests: answers that ask for one, and a worker over a system in memory."""

from datetime import UTC, datetime, timedelta
from itertools import count

from integrations.accounts import Account, WriteBackPolicy
from integrations.memory import MemorySystem
from integrations.system import Outbound
from ledger.database import Database
from ledger.dead import DeadLedger
from ledger.intake import Due, Intake
from ledger.tags import TagLedger, TagRow
from ledger.writebacks import Order, OwnTag, WriteBackLedger
from tagging.answers import Answer
from tagging.messages import WriteBack
from tagging.settings import WriteBackSettings
from tests.answers import stored
from workers.stores.memory import MemoryMeter
from workers.writeback.connections import Connection
from workers.writeback.pacing import Pace
from workers.writeback.writer import Outcome, Writer

APPLY = WriteBackPolicy(mode="apply", only_existing=False)
ACCOUNT = "zendesk"
_ids = count()


def answered(
    ref: str = "T-1",
    *,
    revision: int = 1,
    scores: dict[str, float] | None = None,
    label_set: str | None = "topics",
    kind: str = "ticket",
    fingerprint: str = "demo-1",
) -> Answer:
    """An answer that scores these labels each by itself: applied from 0.5 on, suggested from 0.3 on."""
    scores = {"billing": 0.9, "login": 0.4} if scores is None else scores
    answer = stored(ref, revision=revision, task_id=f"task-{next(_ids)}", fingerprint=fingerprint).answer
    tags = [
        {"label": label, "score": score, "decision": "apply" if score >= 0.5 else "suggest"}
        for label, score in sorted(scores.items(), key=lambda item: -item[1])
        if score >= 0.3
    ]
    return {  # type: ignore[return-value,typeddict-item]  # an answer with some of its fields replaced
        **answer,
        "kind": kind,
        "label_set": label_set,
        "multi_label": True,
        "labels": list(scores),
        "scores": list(scores.values()),
        "tags": tags,
    }


def order(ref: str = "T-1", *, revision: int = 1, mode: str = "apply", **fields: object) -> Order:
    """The order for such an answer."""
    row = TagRow.of(answered(ref, revision=revision, **fields))  # type: ignore[arg-type]  # as answered's
    return Order.about(row, WriteBack(system=ACCOUNT, mode=mode))


def own(tag: str, about: Order, *, set_at: bool = True, removed: bool = False, ticket: str = "T-1") -> OwnTag:
    """A tag of ours for this order."""
    from dataclasses import replace

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return replace(
        OwnTag.of(about, ticket, tag), set_at=moment if set_at else None, removed_at=moment if removed else None
    )


class Desk:
    """A ledger, a system and the worker between them; time stands still unless it is told to go on."""

    def __init__(
        self,
        database: Database,
        system: MemorySystem | None = None,
        *,
        policy: WriteBackPolicy = APPLY,
        max_per_minute: int = 6000,
        **settings: float,
    ) -> None:
        self.system = system or MemorySystem()
        self.intake = Intake(database)
        self.tags = TagLedger(database)
        self.dead = DeadLedger(database)
        self.ledger = WriteBackLedger(database)
        self.meter = MemoryMeter()
        self.now = datetime.now(UTC) + timedelta(hours=1)
        self._account = Account(
            name=ACCOUNT, system="memory", label_sets=("topics",), write_back={"topics": policy},
            max_per_minute=max_per_minute,
        )  # fmt: skip
        self._settings = WriteBackSettings.model_validate(
            {"backoff_s": 10.0, "breaker_failures": 3, "max_attempts": 4, **settings}
        )
        self.writer = self.worker()

    def worker(self, system: Outbound | None = None) -> Writer:
        """A worker of its own on this desk's ledger; as after a restart."""
        pace = Pace(
            max_per_minute=self._account.max_per_minute,
            breaker_failures=self._settings.breaker_failures,
            breaker_pause_s=self._settings.breaker_pause_s,
        )
        self.connection = Connection(self._account, system or self.system, pace)
        return Writer(
            ledger=self.ledger,
            dead=self.dead,
            connections={ACCOUNT: self.connection},
            settings=self._settings,
            meter=self.meter,
            clock=lambda: self.now,
            monotonic=lambda: self.now.timestamp(),  # noqa: PLW0108  # of the time it will be by then
        )

    def tagged(self, answer: Answer, *, mode: str = "apply") -> None:
        """A tagging worker stores the answer to a message that asked for it to be written back."""
        row = TagRow.of(answer, write_back=WriteBack(system=ACCOUNT, mode=mode))
        self.tags.write({answer["id"]: [row]})

    def due(self) -> list[Due]:
        """What a relay would publish now."""
        return self.intake.claim(now=self.now, until=self.now + timedelta(seconds=60), limit=100)

    def deliver(self) -> list[Outcome]:
        """A relay publishes what is due, and the worker carries it out; what became of each."""
        return [self.writer.write(one.id, dict(one.message)) for one in self.published()]

    def published(self) -> list[Due]:
        """What a relay published now."""
        due = self.due()
        self.intake.published([one.id for one in due], now=self.now, again_at=self.now + timedelta(seconds=900))
        return due

    def pass_time(self, seconds: float) -> None:
        """It is so much later."""
        self.now += timedelta(seconds=seconds)

    def states(self) -> dict[str, int]:
        """How many orders are in each state."""
        return {str(state): n for state, n in self.intake.counts().items()}

    def owned(self, ticket: str = "T-1") -> set[str]:
        """The tags on the ticket that are recorded as ours."""
        return {
            own.tag
            for own in self.ledger.on_ticket(ACCOUNT, ticket)
            if own.set_at is not None and own.removed_at is None
        }
