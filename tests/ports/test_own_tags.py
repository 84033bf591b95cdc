"""Own tags are those that we have set and nobody has taken off since; what we set can be undone, and nothing else."""

from datetime import timedelta

import pytest

from integrations.accounts import WriteBackPolicy
from integrations.memory import MemorySystem
from integrations.system import Busy, Unavailable
from ledger.writebacks import WriteBackLedger
from tests.writebacks import ACCOUNT, APPLY, Desk, answered, order, own
from workers.writeback.undo import Undone, undo

REPLACE = APPLY.model_copy(update={"replace_own": True})


@pytest.fixture
def desk(database) -> Desk:
    return Desk(database)


def write(desk: Desk, ref: str = "T-1", *, revision: int = 1, **fields: object) -> None:
    desk.tagged(answered(ref, revision=revision, **fields))  # type: ignore[arg-type]  # as answered's
    desk.deliver()


def take_back(desk: Desk, since: timedelta = timedelta(), **options: object) -> list[Undone]:
    found = desk.ledger.since(desk.now - since)
    connections = {ACCOUNT: desk.connection}
    return list(undo(found, ledger=desk.ledger, connections=connections, **options))  # type: ignore[arg-type]  # pause


def test_a_tag_that_a_person_had_set_before_is_not_ours(desk):
    desk.system.add("T-1", ["billing"])
    write(desk)
    assert desk.owned() == set()


def test_a_tag_that_a_person_takes_off_is_ours_no_longer_and_stays_off_for_this_revision(desk):
    write(desk)
    desk.system.remove("T-1", ["billing"])
    write(desk, scores={"billing": 0.95}, fingerprint="demo-2")
    assert (desk.system.tags_of("T-1"), desk.owned()) == (frozenset(), set())
    write(desk, scores={"billing": 0.96}, fingerprint="demo-3")
    assert desk.system.tags_of("T-1") == frozenset()
    write(desk, revision=2)
    assert (desk.system.tags_of("T-1"), desk.owned()) == ({"billing"}, {"billing"})


def test_a_tag_that_a_person_took_off_and_put_back_is_never_taken_off_by_us(database):
    desk = Desk(database, policy=REPLACE)
    write(desk)
    desk.system.remove("T-1", ["billing"])
    write(desk, revision=2, scores={"other": 0.9})  # sees that it is gone
    desk.system.add("T-1", ["billing"])
    write(desk, revision=3, scores={"other": 0.9})
    assert desk.system.tags_of("T-1") == {"billing", "other"}
    take_back(desk)
    assert desk.system.tags_of("T-1") == {"billing"}


def test_a_newer_revision_replaces_only_where_the_policy_says_so(database):
    for policy, expected in ((APPLY, {"billing", "refund"}), (REPLACE, {"refund"})):
        desk = Desk(database, MemorySystem(), policy=policy)
        ref = f"T-{len(expected)}"
        desk.system.add(ref, ["urgent"])
        write(desk, ref)
        write(desk, ref, revision=2, scores={"refund": 0.9})
        assert desk.system.tags_of(ref) == expected | {"urgent"}


def test_a_tag_that_a_comment_wants_too_stays_when_its_ticket_no_longer_does(database):
    desk = Desk(database, policy=REPLACE)
    write(desk)
    write(desk, "T-1#c1", kind="comment")
    write(desk, revision=2, scores={"refund": 0.9})
    assert desk.system.tags_of("T-1") == {"billing", "refund"}
    write(desk, "T-1#c1", kind="comment", revision=2, scores={"refund": 0.9})
    assert desk.system.tags_of("T-1") == {"refund"}


def test_undo_takes_off_what_was_set_since_then_and_nothing_else(desk):
    write(desk, "T-1")
    desk.pass_time(3600)
    since = desk.now
    desk.system.add("T-2", ["urgent", "billing"])
    write(desk, "T-1", revision=2, scores={"billing": 0.9, "refund": 0.9})
    write(desk, "T-2", scores={"billing": 0.9, "refund": 0.9})
    assert [(one.ticket, one.tag) for one in desk.ledger.since(since)] == [("T-1", "refund"), ("T-2", "refund")]
    done = take_back(desk)
    assert [(one.ticket, one.tags) for one in done] == [("T-1", ("refund",)), ("T-2", ("refund",))]
    assert desk.system.tags_of("T-1") == {"billing"}
    assert desk.system.tags_of("T-2") == {"urgent", "billing"}
    assert take_back(desk) == [], "a second time there is nothing to undo"


def test_what_is_undone_is_not_set_again_for_the_same_revision(desk):
    write(desk)
    take_back(desk, timedelta(hours=1))
    write(desk, scores={"billing": 0.95}, fingerprint="demo-2")
    assert desk.system.tags_of("T-1") == frozenset()


def test_undo_leaves_alone_what_a_person_has_taken_off_meanwhile(desk):
    write(desk)
    desk.system.remove("T-1", ["billing"])
    [done] = take_back(desk)
    assert (done.tags, done.error) == ((), None)
    assert desk.system.calls.count("remove") == 1, "the person's"
    assert desk.owned() == set()


def test_undo_goes_on_past_a_ticket_that_fails_which_is_still_ours(desk):
    write(desk, "T-1")
    write(desk, "T-2")
    desk.system.failures = [Unavailable("no answer within 10 s")]
    assert [done.error for done in take_back(desk)] == ["Unavailable: no answer within 10 s", None]
    assert (desk.owned("T-1"), desk.owned("T-2")) == ({"billing"}, set())


def test_undo_waits_where_the_system_asks_for_it(desk):
    write(desk)
    desk.system.failures = [Busy("429", after_s=7.0)]
    waited: list[float] = []
    [done] = take_back(desk, pause=waited.append)
    assert (done.tags, waited) == (("billing",), [7.0])


def test_the_list_can_be_of_one_account(desk):
    write(desk)
    assert [one.tag for one in desk.ledger.since(desk.now, account=ACCOUNT)] == ["billing"]
    assert desk.ledger.since(desk.now, account="other") == []


def test_names_that_no_index_takes_are_kept_all_the_same(database):
    ledger = WriteBackLedger(database)
    about, long = order("票" * 256), "标" * 300
    ledger.intend(about, [own(long, about, set_at=False, ticket="单" * 300)], now=Desk(database).now)
    assert [one.tag for one in ledger.on_ticket(ACCOUNT, "单" * 300)] == [long]


def test_a_policy_is_cautious_unless_told_otherwise():
    policy = WriteBackPolicy()
    assert (policy.mode, policy.replace_own, policy.only_existing) == ("suggest", False, True)
