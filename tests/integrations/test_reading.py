"""A new or edited ticket or comment is read; whatever else a system tells of asks nothing of us."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.payloads import at, moment_ms, text_of_adf, text_of_html
from integrations.system import Event, Handshake, Ignored, Incoming, Unreadable, Unverified
from tests.integrations.senders import (
    CHATWOOT,
    FEISHU,
    GENERIC,
    GITHUB,
    GITLAB,
    JIRA,
    NOW,
    SENDERS,
    TEXT,
    TITLE,
    ZAMMAD,
    ZENDESK,
    Sender,
)


def received(sender: Sender, payload: dict[str, Any] | None = None, **headers: str) -> Event:
    module = import_module(f"integrations.{sender.system}")
    event: Event = module.inbound(sender.account("s3cret")).receive(sender.hook(payload, **headers))
    return event


def changed(sender: Sender, **values: Any) -> dict[str, Any]:
    """The sender's ticket with these values, by path with two underscores for each dot."""
    payload = deepcopy(sender.ticket)
    for path, value in values.items():
        *steps, last = path.split("__")
        inner = payload
        for step in steps:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return payload


@pytest.mark.parametrize("sender", SENDERS, ids=lambda s: s.system)
def test_a_new_ticket_has_its_reference_text_and_revision(sender: Sender) -> None:
    event = received(sender)
    assert isinstance(event, Incoming)
    assert (event.kind, event.ref) == (sender.kind, sender.ref)
    assert event.text == (TEXT if sender.kind == "comment" else f"{TITLE}\n\n{TEXT}")
    assert 1_700_000_000_000 < event.revision < 1_900_000_000_000
    assert event.delivery_id


COMMENTS: list[tuple[str, Sender, dict[str, Any], dict[str, str], str]] = [
    (
        "github",
        GITHUB,
        changed(GITHUB, action="created", comment={"id": 5, "body": TEXT, "updated_at": "2026-11-25T11:00:00Z"}),
        {"x-github-event": "issue_comment"},
        "owner/repo#12/5",
    ),
    (
        "gitlab",
        GITLAB,
        changed(
            GITLAB,
            object_kind="note",
            issue={"iid": 23},
            object_attributes={
                "id": 7,
                "note": TEXT,
                "noteable_type": "Issue",
                "updated_at": "2026-11-25 11:00:00 UTC",
            },
        ),
        {},
        "group/project#23/7",
    ),
    (
        "zendesk",
        ZENDESK,
        changed(
            ZENDESK,
            type="zen:event-type:ticket.comment_added",
            event={"comment": {"id": "6", "body": TEXT, "is_public": True, "author": {"id": "1", "is_staff": False}}},
        ),
        {},
        "5158/6",
    ),
    (
        "zammad",
        ZAMMAD,
        changed(ZAMMAD, ticket__article_ids=[100, 109]),
        {},
        "81/109",
    ),
    (
        "jira",
        JIRA,
        changed(
            JIRA,
            webhookEvent="comment_created",
            comment={"id": "8", "body": TEXT, "author": {"accountId": "c"}, "updated": "2026-11-25T11:00:00.000+0000"},
        ),
        {},
        "OPS-7/8",
    ),
]


@pytest.mark.parametrize(
    ("sender", "payload", "headers", "ref"), [c[1:] for c in COMMENTS], ids=[c[0] for c in COMMENTS]
)
def test_a_comment_belongs_to_its_ticket(
    sender: Sender, payload: dict[str, Any], headers: dict[str, str], ref: str
) -> None:
    event = received(sender, payload, **headers)
    assert isinstance(event, Incoming)
    assert (event.kind, event.ref, event.text) == ("comment", ref, TEXT)


IGNORED: list[tuple[Sender, dict[str, Any], dict[str, str], str]] = [
    (GITHUB, GITHUB.ticket, {"x-github-event": "ping"}, "ping"),
    (GITHUB, GITHUB.ticket, {"x-github-event": "push"}, "other-event"),
    (GITHUB, changed(GITHUB, action="labeled"), {}, "other-action"),
    (GITHUB, changed(GITHUB, action="edited", changes={"labels": {}}), {}, "no-new-text"),
    (GITHUB, changed(GITHUB, sender__type="Bot"), {}, "bot"),
    (GITHUB, changed(GITHUB, sender__login="tagmill"), {}, "own-echo"),
    (GITHUB, changed(GITHUB, issue__pull_request={"url": "u"}), {}, "pull-request"),
    (GITLAB, changed(GITLAB, object_kind="push"), {}, "other-event"),
    (GITLAB, changed(GITLAB, object_attributes={"iid": 23}), {}, "test"),
    (GITLAB, changed(GITLAB, object_attributes__action="update", changes={"labels": {}}), {}, "no-new-text"),
    (GITLAB, changed(GITLAB, user__username="tagmill"), {}, "own-echo"),
    (GITLAB, changed(GITLAB, user__username="project_1_bot_ab"), {}, "bot"),
    (ZENDESK, changed(ZENDESK, type="zen:event-type:ticket.tags_changed"), {}, "other-event"),
    (ZENDESK, changed(ZENDESK, detail__actor_id="99"), {}, "own-echo"),
    (FEISHU, changed(FEISHU, header__event_type="helpdesk.ticket.created_v1"), {}, "other-event"),
    (FEISHU, changed(FEISHU, event__sender_id={"open_id": "ou_us"}), {}, "own-echo"),
    (CHATWOOT, changed(CHATWOOT, message_type="outgoing"), {}, "agent"),
    (CHATWOOT, changed(CHATWOOT, sender__id=3), {}, "own-echo"),
    (CHATWOOT, changed(CHATWOOT, private=True), {}, "internal"),
    (CHATWOOT, changed(CHATWOOT, event="conversation_updated"), {}, "other-event"),
    (ZAMMAD, changed(ZAMMAD, article__sender="System"), {}, "bot"),
    (ZAMMAD, changed(ZAMMAD, article__created_by={"login": "tagmill"}), {}, "own-echo"),
    (ZAMMAD, changed(ZAMMAD, article__internal=True), {}, "internal"),
    (ZAMMAD, changed(ZAMMAD, article=None), {}, "no-new-text"),
    (JIRA, changed(JIRA, webhookEvent="jira:issue_deleted"), {}, "other-event"),
    (
        JIRA,
        changed(JIRA, webhookEvent="jira:issue_updated", changelog={"items": [{"field": "labels"}]}),
        {},
        "no-new-text",
    ),
    (JIRA, changed(JIRA, user__accountId="us"), {}, "own-echo"),
    (JIRA, changed(JIRA, user__accountType="app"), {}, "bot"),
    (GENERIC, changed(GENERIC, event="ticket.closed"), {}, "other-event"),
    (GENERIC, changed(GENERIC, user__login="tagmill"), {}, "own-echo"),
]


@pytest.mark.parametrize(
    ("sender", "payload", "headers", "why"), IGNORED, ids=[f"{s.system}-{why}" for s, _, _, why in IGNORED]
)
def test_our_own_echo_bots_and_other_events_are_ignored(
    sender: Sender, payload: dict[str, Any], headers: dict[str, str], why: str
) -> None:
    assert received(sender, payload, **headers) == Ignored(why=why)


AGENTS: list[tuple[Sender, dict[str, Any], dict[str, Any]]] = [
    (ZAMMAD, changed(ZAMMAD, article__sender="Agent"), {"agents": False}),
    (
        ZENDESK,
        changed(
            ZENDESK,
            type="zen:event-type:ticket.comment_added",
            event={"comment": {"id": "6", "body": TEXT, "is_public": True, "author": {"id": "1", "is_staff": True}}},
        ),
        {"agents": False},
    ),
    (FEISHU, changed(FEISHU, event__sender_type=3), {"senders": [2]}),
]


@pytest.mark.parametrize(("sender", "payload", "options"), AGENTS, ids=[sender.system for sender, _, _ in AGENTS])
def test_agents_are_read_unless_the_account_says_otherwise(
    sender: Sender, payload: dict[str, Any], options: dict[str, Any]
) -> None:
    assert isinstance(received(sender, payload), Incoming)
    assert isinstance(received(replace(sender, options=options), payload), Ignored)


def test_a_later_edit_has_a_higher_revision() -> None:
    edited = changed(GITHUB, action="edited", changes={"body": {"from": "x"}}, issue__updated_at="2026-11-25T10:00:01Z")
    before, after = received(GITHUB), received(GITHUB, edited)
    assert isinstance(before, Incoming)
    assert isinstance(after, Incoming)
    assert after.revision == before.revision + 1000


EDITED: list[tuple[Sender, dict[str, Any]]] = [
    (GITHUB, changed(GITHUB, action="edited", changes={"title": {"from": "x"}})),
    (GITLAB, changed(GITLAB, object_attributes__action="update", changes={"title": {"previous": "x"}})),
    (ZENDESK, changed(ZENDESK, type="zen:event-type:ticket.subject_changed", event={"current": TITLE})),
    (ZENDESK, changed(ZENDESK, type="zen:event-type:ticket.description_changed", event={"current": TEXT})),
    (JIRA, changed(JIRA, webhookEvent="jira:issue_updated", changelog={"items": [{"field": "summary"}]})),
]


@pytest.mark.parametrize(("sender", "payload"), EDITED, ids=[s.system for s, _ in EDITED])
def test_an_edited_ticket_is_read_as_it_is_now(sender: Sender, payload: dict[str, Any]) -> None:
    event = received(sender, payload)
    assert isinstance(event, Incoming)
    assert (event.kind, event.ref, event.text) == ("ticket", sender.ref, f"{TITLE}\n\n{TEXT}")


def test_a_changelog_of_jira_that_is_no_list_names_no_change() -> None:
    odd = changed(JIRA, webhookEvent="jira:issue_updated", changelog={"items": 5})
    assert received(JIRA, odd) == Ignored(why="no-new-text")


@pytest.mark.parametrize("conversation", [{"id": 8}, {"display_id": "8"}, {"id": 4711, "display_id": 8}], ids=str)
def test_a_conversation_of_chatwoot_is_called_what_its_api_calls_it(conversation: dict[str, Any]) -> None:
    event = received(CHATWOOT, changed(CHATWOOT, conversation=conversation))
    assert isinstance(event, Incoming)
    assert event.ref == "8/31"


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, "no JSON", 7], ids=["deep", "big", "text", "number"])
def test_a_message_of_feishu_without_a_readable_text_is_empty(content: object) -> None:
    event = received(FEISHU, changed(FEISHU, event__text="", event__content=content))
    assert isinstance(event, Incoming)
    assert event.text == ""


GENUINE: list[tuple[Sender, dict[str, Any], dict[str, str]]] = [
    *((sender, sender.ticket, {}) for sender in SENDERS),
    *((sender, payload, {}) for sender, payload in EDITED),
    *((sender, payload, headers) for _, sender, payload, headers, _ in COMMENTS),
    (FEISHU, {"type": "url_verification", "challenge": "c-1"}, {}),
]
any_text = st.text(st.characters(), max_size=12)  # surrogates and control characters among them
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is anything to change."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(path for key, one in inner for path in paths(one, (*prefix, key)))]


def mutated(draw: Callable[..., Any], payload: dict[str, Any]) -> Any:
    path = draw(st.sampled_from(paths(payload)))
    value = draw(json_values)
    if not path:
        return value
    copy = deepcopy(payload)
    inner: Any = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return copy


@settings(max_examples=300, deadline=None)
@given(data=st.data(), genuine=st.sampled_from(GENUINE))
def test_no_payload_breaks_an_adapter(
    data: st.DataObject, genuine: tuple[Sender, dict[str, Any], dict[str, str]]
) -> None:
    sender, payload, headers = genuine
    try:
        event = received(sender, mutated(data.draw, payload), **headers)
    except (Unreadable, Unverified):
        return
    assert isinstance(event, Incoming | Ignored | Handshake)
    if isinstance(event, Incoming):
        assert 0 <= event.revision < 2**63
        assert event.ref


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"\xff", b"[" * 100_000], ids=range(5))
def test_what_is_no_json_object_is_unreadable(body: bytes) -> None:
    signed = GITHUB.sign(body, "s3cret", NOW)
    hook = replace(GITHUB.hook(), body=body, headers={**GITHUB.headers, **signed})
    module = import_module("integrations.github")
    with pytest.raises(Unreadable):
        module.inbound(GITHUB.account("s3cret")).receive(hook)


def test_html_becomes_what_a_reader_sees() -> None:
    html = "<p>Hello &amp; welcome</p><script>evil()</script><style>p{}</style><div>second<br>third</div>"
    assert text_of_html(html) == "Hello & welcome\n\nsecond\nthird"


def test_an_atlassian_document_becomes_text_however_deep() -> None:
    node: Any = {"type": "text", "text": "deep"}
    for _ in range(2000):
        node = {"type": "doc", "content": [node]}
    assert text_of_adf(node) == "deep"


def test_a_path_that_leads_nowhere_is_nothing() -> None:
    assert at({"a": [{"b": 1}]}, "a[0].b") == 1
    assert at({"a": [{"b": 1}]}, "a[3].b") is None
    assert at({"a": "text"}, "a.b.c") is None


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("2026-11-25T10:00:00Z", 1795600800000),
        ("2026-11-25 10:00:00 UTC", 1795600800000),
        ("2026-11-25T10:00:00.000+0000", 1795600800000),
        (1795600800, 1795600800000),
        ("1795600800000", 1795600800000),
        (None, round(NOW * 1000)),
        ("soon", round(NOW * 1000)),
    ],
)
def test_a_moment_is_read_however_it_is_written(value: object, ms: int) -> None:
    assert moment_ms(value, otherwise=NOW) == ms


def test_payloads_are_json() -> None:
    assert all(json.dumps(sender.ticket) for sender in SENDERS)
