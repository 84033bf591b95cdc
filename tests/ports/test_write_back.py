"""A stored answer that asks for it gets its tags to the ticket, once, whatever fails on the way."""

from collections.abc import Collection
from typing import cast

import pytest

from integrations.memory import MemorySystem
from integrations.system import Busy, Declined, Unavailable
from ledger.tags import TagRow
from tagging.answers import Answer
from tagging.messages import WriteBack
from tests.writebacks import ACCOUNT, Desk, answered


@pytest.fixture
def desk(database) -> Desk:
    return Desk(database)


def test_tags_that_are_stored_reach_the_ticket_and_are_recorded_as_ours(desk):
    desk.tagged(answered())
    assert desk.deliver() == ["written"]
    assert desk.system.tags_of("T-1") == {"billing"}
    assert desk.system.notes == [("T-1", "建议标签 / Suggested tags: login (0.40)")]
    assert desk.owned() == {"billing"}
    assert desk.states() == {"done": 1}


def test_an_order_names_the_answer_and_holds_no_text(desk):
    desk.tagged(answered())
    [due] = desk.due()
    assert due.queue == "tag.writeback"
    assert set(due.message) == {
        "account", "mode", "source", "ref", "kind", "revision", "label_set", "label_set_digest", "multi_label",
        "task_id", "fingerprint", "attempts",
    }  # fmt: skip


def test_the_same_answer_written_twice_asks_once(desk):
    answer = answered()
    desk.tagged(answer)
    desk.tagged(answer)
    assert desk.deliver() == ["written"]
    desk.tagged(answer)
    assert desk.deliver() == []


def test_an_answer_that_does_not_ask_is_written_nowhere(desk):
    answer = answered()
    desk.tags.write({answer["id"]: [TagRow.of(answer)]})
    assert desk.due() == []


def test_an_answer_to_an_older_revision_asks_for_nothing(desk):
    desk.tagged(answered(revision=2))
    desk.tagged(answered(revision=1, scores={"stale": 0.9}))
    assert desk.deliver() == ["written"]
    assert desk.system.tags_of("T-1") == {"billing"}


def test_an_order_that_a_newer_answer_has_overtaken_is_superseded(desk):
    desk.tagged(answered(revision=1, scores={"stale": 0.9}))
    desk.tagged(answered(revision=2))
    assert sorted(desk.deliver()) == ["superseded", "written"]
    assert desk.system.tags_of("T-1") == {"billing"}
    assert desk.states() == {"done": 1, "superseded": 1}


def test_an_order_is_overtaken_although_the_labels_of_its_set_have_changed_since(desk):
    desk.tagged(answered(revision=1, scores={"stale": 0.9}))
    [late] = desk.published()
    desk.tagged(cast("Answer", {**answered(revision=2), "label_set_digest": "of-other-labels"}))
    assert desk.deliver() == ["written"]
    assert desk.writer.write(late.id, dict(late.message)) == "superseded"
    assert desk.system.tags_of("T-1") == {"billing"}


def test_another_model_s_answer_to_the_same_revision_is_written_back_too(desk):
    desk.tagged(answered(scores={"billing": 0.9}))
    desk.deliver()
    desk.tagged(answered(scores={"refund": 0.9}, fingerprint="demo-2"))
    assert desk.deliver() == ["written"]
    assert desk.system.tags_of("T-1") == {"billing", "refund"}


def test_items_of_a_bulk_message_are_written_back_each_to_its_ticket(desk):
    rows = [TagRow.of(answered(f"T-{i}"), write_back=WriteBack(system=ACCOUNT)) for i in range(3)]
    desk.tags.write({"bulk": rows})
    assert desk.deliver() == ["written"] * 3
    assert all(desk.system.tags_of(f"T-{i}") == {"billing"} for i in range(3))


def test_a_delivery_that_comes_again_changes_nothing(desk):
    desk.tagged(answered())
    [due] = desk.published()
    assert [desk.writer.write(due.id, dict(due.message)) for _ in range(2)] == ["written", "known"]
    assert desk.system.calls.count("add") == desk.system.calls.count("suggest") == 1


class Killed(BaseException):
    """The process ends here."""


class Deadly(MemorySystem):
    """Ends the process after a call of this name was carried out."""

    def __init__(self, after: str) -> None:
        super().__init__()
        self._after = after

    def add(self, ticket: str, tags: Collection[str]) -> None:
        super().add(ticket, tags)
        self._die("add")

    def suggest(self, ticket: str, note: str) -> None:
        super().suggest(ticket, note)
        self._die("suggest")

    def _die(self, name: str) -> None:
        if name == self._after:
            self._after = ""
            raise Killed


@pytest.mark.parametrize("after", ["add", "suggest"])
def test_killed_between_the_call_and_the_record_it_is_set_once_and_recorded(database, after):
    desk = Desk(database, Deadly(after))
    desk.tagged(answered())
    [due] = desk.published()
    with pytest.raises(Killed):
        desk.writer.write(due.id, dict(due.message))
    assert desk.owned() == set()
    assert desk.worker().write(due.id, dict(due.message)) in ("written", "unchanged")
    assert desk.system.calls.count("add") == 1
    assert desk.system.calls.count("suggest") == 1
    assert desk.owned() == {"billing"}
    assert desk.states() == {"done": 1}


def test_a_busy_system_is_asked_again_when_it_said(desk):
    desk.tagged(answered())
    desk.system.failures = [Busy("429", after_s=120.0)]
    assert desk.deliver() == ["retried"]
    desk.pass_time(119)
    assert desk.due() == []
    desk.pass_time(2)
    assert desk.deliver() == ["written"]


def test_what_a_worker_postponed_before_its_publishing_was_noted_stays_postponed(desk):
    desk.tagged(answered())
    desk.system.failures = [Busy("429", after_s=120.0)]
    [due] = desk.due()
    assert desk.writer.write(due.id, dict(due.message)) == "retried"
    desk.intake.published([due.id], now=desk.now, again_at=desk.now)
    assert desk.states() == {"postponed": 1}
    assert desk.due() == []
    desk.pass_time(121)
    assert desk.deliver() == ["written"]


def test_a_system_that_is_away_is_tried_so_often_and_then_the_order_is_parked_and_can_be_requeued(desk):
    desk.tagged(answered())
    outcomes = []
    for _ in range(4):
        desk.system.failures = [Unavailable("no answer within 10 s")]
        outcomes += desk.deliver()
        desk.pass_time(3600)
    assert outcomes == ["retried", "retried", "retried", "dead"]
    [letter] = desk.dead.list()
    assert (letter.task, letter.reason) == ("tagmill.write_back", "Unavailable: no answer within 10 s")
    with desk.dead.take([letter.id]):
        desk.system.failures = [Unavailable("again")]
    assert desk.writer.write(letter.id, letter.message) == "retried", "it has all its attempts before it again"
    desk.pass_time(60)
    assert desk.deliver() == ["written"]


def test_while_a_system_is_down_others_wait_without_calling_it_and_without_an_attempt(desk):
    for i in range(5):
        desk.tagged(answered(f"T-{i}"))
    desk.system.failures = [Unavailable("503")] * 3
    assert desk.deliver() == ["retried"] * 3 + ["postponed"] * 2
    assert len(desk.system.calls) == 3
    for _ in range(3):
        desk.pass_time(100)
        desk.deliver()
    assert desk.states() == {"done": 5}


def test_orders_that_wait_for_a_system_do_not_close_the_intake(desk):
    desk.tagged(answered())
    desk.system.failures = [Unavailable("503")]
    assert desk.deliver() == ["retried"]
    assert desk.intake.load().unfinished == 0


def test_more_than_an_account_allows_wait_for_their_turn_and_none_is_lost(database):
    desk = Desk(database, max_per_minute=60)
    for i in range(20):
        desk.tagged(answered(f"T-{i}", scores={"billing": 0.9}))
    outcomes = desk.deliver()
    assert set(outcomes) == {"written", "postponed"}
    minutes = 0
    while desk.states() != {"done": 20}:
        desk.pass_time(60)
        minutes += 1
        assert minutes < 4, "they wait too long"
        desk.deliver()
    assert desk.dead.count() == 0


def test_what_the_system_refuses_for_good_is_parked_at_once(desk):
    desk.tagged(answered())
    desk.system.failures = [Declined("the token is not accepted (401)")]
    assert desk.deliver() == ["dead"]
    assert desk.dead.list()[0].reason == "Declined: the token is not accepted (401)"
    assert desk.states() == {"dead": 1}


def test_a_note_that_the_system_would_not_take_is_tried_again(desk):
    desk.tagged(answered(scores={"login": 0.4}))
    desk.system.failures = []
    original = desk.system.suggest

    def refuse(ticket: str, note: str) -> None:
        desk.system.suggest = original  # type: ignore[method-assign]  # once
        raise Unavailable("503")

    desk.system.suggest = refuse  # type: ignore[method-assign]  # as above
    assert desk.deliver() == ["retried"]
    desk.pass_time(60)
    assert desk.deliver() == ["written"]
    assert len(desk.system.notes) == 1


def test_an_order_to_nobody_says_who_is_known(desk):
    answer = answered()
    desk.tags.write({answer["id"]: [TagRow.of(answer, write_back=WriteBack(system="nobody"))]})
    assert desk.deliver() == ["dead"]
    assert desk.dead.list()[0].reason == "Declined: no account 'nobody'; this worker knows: zendesk"


def test_tags_of_a_label_set_without_a_policy_stay_with_us(desk):
    desk.tagged(answered(label_set="sentiment"))
    desk.tagged(answered("T-2", label_set=None))
    assert desk.deliver() == ["no_policy", "no_policy"]
    assert desk.system.calls == []


def test_a_message_that_is_no_order_is_parked(desk):
    assert desk.writer.write("x", {"text": "hello"}) == "dead"
    assert "an order to write back with a wrong or missing account, fingerprint" in desk.dead.list()[0].reason


def test_what_a_newer_version_says_in_an_order_is_ignored(desk):
    desk.tagged(answered())
    [due] = desk.published()
    assert desk.writer.write(due.id, {**due.message, "from_the_future": 1}) == "written"


def test_tags_go_to_no_system_but_the_one_that_the_document_comes_from(desk):
    answer = answered()
    foreign = {**answer, "source": "somebody"}
    desk.tags.write({answer["id"]: [TagRow.of(foreign, write_back=WriteBack(system=ACCOUNT))]})
    assert desk.deliver() == ["dead"]
    assert "document of 'somebody' to 'zendesk'" in desk.dead.list()[0].reason
    assert desk.system.calls == []


def test_a_fault_of_ours_costs_an_attempt_and_not_the_order(desk):
    desk.tagged(answered())
    desk.system.tags_of = None
    assert desk.deliver() == ["retried"]
    del desk.system.tags_of
    desk.pass_time(60)
    assert desk.deliver() == ["written"]


def test_a_system_that_asks_for_peace_without_end_gets_a_day(desk):
    desk.tagged(answered())
    desk.system.failures = [Busy("429", after_s=1e12)]
    assert desk.deliver() == ["retried"]
    desk.pass_time(86_401)
    assert desk.deliver() == ["written"]
