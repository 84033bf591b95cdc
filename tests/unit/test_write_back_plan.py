"""What is done to a ticket: tags are added; none is taken off that is not our own, or that somebody else wants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.accounts import WriteBackPolicy
from ledger.writebacks import Order, OwnTag
from tests.writebacks import answered, order, own
from workers.writeback.plan import Plan, Ticket, Wanted, choose, plan

APPLY = WriteBackPolicy(mode="apply", only_existing=False)
REPLACE = APPLY.model_copy(update={"replace_own": True})
SCORES = {"billing": 0.9, "refund": 0.7, "login": 0.4, "praise": 0.1}


def chosen(
    policy: WriteBackPolicy = APPLY, *, mode: str = "apply", known: set[str] | None = None, **scores: float
) -> Wanted:
    answer = answered(scores=scores or SCORES)
    return choose(
        answer, policy, mode=mode, known=None if known is None else frozenset(known), tag_of=lambda label: label.lower()
    )


def planned(
    *apply: str,
    carries: tuple[str, ...] = (),
    ours: tuple[OwnTag, ...] = (),
    policy: WriteBackPolicy = APPLY,
    about: Order | None = None,
    suggest: tuple[str, ...] = (),
) -> Plan:
    wanted = Wanted(apply=dict.fromkeys(apply, 0.9), suggest=dict.fromkeys(suggest, 0.4))
    ticket = Ticket(name="T-1", tags=frozenset(carries), own=ours)
    return plan(about or order(), policy, wanted, ticket)


# What the answer asks for


@pytest.mark.parametrize(
    ("policy", "mode", "apply", "suggest"),
    [
        ({}, "apply", ["billing", "refund"], ["login"]),
        ({}, "suggest", [], ["billing", "refund", "login"]),
        ({"mode": "suggest"}, "apply", [], ["billing", "refund", "login"]),
        ({"top_k": 1}, "apply", ["billing"], []),
        ({"top_k": 2, "mode": "suggest"}, "apply", [], ["billing", "refund"]),
        ({"thresholds": {"refund": 0.8}}, "apply", ["billing"], ["refund", "login"]),
        ({"thresholds": {"login": 0.35}}, "apply", ["billing", "refund", "login"], []),
        ({"thresholds": {"praise": 0.1}}, "apply", ["billing", "refund", "praise"], []),
        ({"thresholds": {"praise": 0.05}, "top_k": 4}, "apply", ["billing", "refund", "praise"], ["login"]),
    ],
)
def test_tags_are_applied_or_suggested_by_mode_threshold_and_number(policy, mode, apply, suggest):
    wanted = chosen(APPLY.model_copy(update=policy), mode=mode)
    assert (list(wanted.apply), list(wanted.suggest)) == (apply, suggest)


def test_an_answer_that_abstains_asks_for_nothing():
    assert chosen(billing=0.2, login=0.1) == Wanted()


def test_of_a_single_choice_no_second_label_is_taken_however_low_its_threshold():
    answer = {**answered(scores={"billing": 0.6, "login": 0.4}), "multi_label": False}
    policy = APPLY.model_copy(update={"thresholds": {"login": 0.1}})
    wanted = choose(answer, policy, mode="apply", known=None, tag_of=str)  # type: ignore[arg-type]  # still an answer
    assert list(wanted.apply) == ["billing"]


def test_tags_that_the_system_does_not_have_are_left_out_and_make_room_for_others():
    policy = APPLY.model_copy(update={"only_existing": True, "top_k": 1})
    wanted = chosen(policy, known={"refund", "login"})
    assert (list(wanted.apply), wanted.unknown) == (["refund"], 1)


def test_a_system_without_a_list_of_tags_takes_any():
    assert list(chosen(APPLY.model_copy(update={"only_existing": True}), known=None).apply) == ["billing", "refund"]


def test_labels_that_are_one_tag_to_the_system_are_one_tag():
    assert dict(chosen(Billing=0.9, billing=0.7).apply) == {"billing": 0.9}


# What is done about it


def test_what_is_missing_is_added_and_will_be_ours():
    todo = planned("billing", "refund", carries=("refund",))
    assert todo.add == ("billing",)
    assert [held.tag for held in todo.held] == ["billing"]


def test_a_tag_that_a_person_set_is_not_ours():
    todo = planned("billing", carries=("billing",))
    assert (todo.add, todo.held) == ((), ())


def test_a_tag_of_ours_that_still_holds_stays_ours_under_the_newer_revision():
    todo = planned("billing", carries=("billing",), ours=(own("billing", order()),), about=order(revision=2))
    assert todo.add == ()
    assert [(held.tag, held.revision) for held in todo.held] == [("billing", 2)]


def test_a_tag_that_was_intended_and_is_there_is_ours():
    todo = planned("billing", carries=("billing",), ours=(own("billing", order(), set_at=False),))
    assert (todo.add, [held.tag for held in todo.held]) == ((), ["billing"])


def test_a_tag_that_was_intended_and_is_not_there_is_added():
    todo = planned("billing", ours=(own("billing", order(), set_at=False),))
    assert (todo.add, todo.gone) == (("billing",), ())


@pytest.mark.parametrize("removed", [False, True], ids=["seen now", "seen before"])
def test_a_tag_that_somebody_took_off_is_not_set_again_for_the_same_revision(removed):
    ours = (own("billing", order(), removed=removed),)
    assert planned("billing", ours=ours).add == ()
    assert planned("billing", ours=ours, about=order(revision=2)).add == ("billing",)


def test_a_tag_that_somebody_took_off_is_no_longer_ours():
    ours = own("billing", order())
    assert planned(ours=(ours,)).gone == (ours,)


def test_a_tag_that_somebody_took_off_and_put_back_is_theirs():
    todo = planned(carries=("billing",), ours=(own("billing", order(), removed=True),), policy=REPLACE)
    assert todo.remove == ()


def test_an_own_tag_that_no_longer_holds_stays_unless_the_policy_replaces():
    ours, newer = (own("stale", order()),), order(revision=2)
    assert planned("billing", carries=("stale",), ours=ours, about=newer).remove == ()
    todo = planned("billing", carries=("stale",), ours=ours, about=newer, policy=REPLACE)
    assert (todo.remove, todo.gone) == (("stale",), ours)


def test_an_own_tag_that_another_document_or_label_set_wants_stays():
    comment = own("stale", order("T-1#c", kind="comment"))
    other_set = own("stale", order(label_set="mood"))
    for other in (comment, other_set):
        ours = (own("stale", order()), other)
        todo = planned(carries=("stale",), ours=ours, about=order(revision=2), policy=REPLACE)
        assert todo.remove == ()
        assert todo.gone == ours[:1], "this document wants it no longer"


def test_who_only_suggests_takes_nothing_off():
    policy = REPLACE.model_copy(update={"mode": "suggest"})
    assert planned(carries=("stale",), ours=(own("stale", order()),), policy=policy).remove == ()
    about = order(mode="suggest", revision=2)
    assert planned(carries=("stale",), ours=(own("stale", order()),), policy=REPLACE, about=about).remove == ()


def test_a_note_names_what_the_ticket_does_not_have():
    assert planned(suggest=("login", "mood"), carries=("mood",)).note == "建议标签 / Suggested tags: login (0.40)"
    assert planned(suggest=("mood",), carries=("mood",)).note is None


names = st.sampled_from(["a", "b", "c", "d"])
owners = st.builds(
    lambda tag, about, set_at, removed: own(tag, about, set_at=set_at, removed=removed),
    names,
    st.sampled_from([order(), order("T-1#c", kind="comment"), order(label_set="mood"), order(revision=2)]),
    st.booleans(),
    st.booleans(),
)
policies = st.builds(
    WriteBackPolicy,
    mode=st.sampled_from(["apply", "suggest"]),
    top_k=st.integers(1, 4),
    thresholds=st.dictionaries(names, st.floats(0, 1)),
    replace_own=st.booleans(),
    only_existing=st.booleans(),
)


@given(
    st.dictionaries(names, st.floats(0, 1), min_size=1),
    policies,
    st.none() | st.frozensets(names),
    st.frozensets(names),
    st.lists(owners, unique_by=lambda o: o.id),
    st.sampled_from(["apply", "suggest"]),
)
def test_whatever_stands_nobody_else_s_tag_is_touched_and_never_more_than_top_k(
    scores, policy, known, carries, ours, mode
):
    about = replace(order(revision=2), mode=mode)
    wanted = choose(answered(scores=scores), policy, mode=mode, known=known, tag_of=str)
    todo = plan(about, policy, wanted, Ticket(name="T-1", tags=carries, own=ours))
    live = {one.tag for one in ours if one.removed_at is None}
    held_by_others = {one.tag for one in ours if one.removed_at is None and not one.is_for(about)}
    assert len(wanted.apply) + len(wanted.suggest) <= policy.top_k
    assert set(todo.remove) <= live & carries - held_by_others - set(wanted.apply)
    assert not todo.remove or policy.replace_own
    assert not set(todo.add) & carries
    if policy.mode == "suggest" or mode == "suggest":
        assert (todo.add, todo.remove) == ((), ())
    if policy.only_existing and known is not None:
        assert set(todo.add) | set(wanted.suggest) <= known
    assert {held.tag for held in todo.held} & carries <= live, "a person's tag never becomes ours"
