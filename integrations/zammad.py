"""Zammad: webhooks of a trigger on new and changed tickets; tags are tags.

    [desk]
    system = "zammad"
    base_url = "https://desk.example"
    secrets = ["env:ZAMMAD_HOOK_SECRET"]
    token = "env:ZAMMAD_TOKEN"                       # permissions ticket.agent, admin.tag to know the tags
    label_sets = ["intent"]

Verified against Zammad's documentation and source: the payload's ``ticket`` and ``article``, and ``X-Hub-Signature``
with SHA-1, which is all that it offers; it has no timestamp, so what is replayed is recognised by its revision, and
by its delivery id. The calls for tags are those of its documentation; none was made. Revision:
``article.updated_at``, else the ticket's. Internal articles are left alone, our own notes among them, and those of
``own_actor``, a login; with ``agents = false`` in the options those of agents as well.
"""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import client_of, token_of
from integrations.inbox import Verified, refuse_unknown_options, require_secrets
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at, text_of_html
from integrations.signatures import Scheme, verify
from integrations.system import Event, Hook, Ignored, Inbound, Incoming

SCHEME: Final = Scheme(header="x-hub-signature", algorithm="sha1", prefix="sha1=")
_OPTIONS: Final = ("own_actor", "agents")


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no secret, or options that nobody knows.
    """
    require_secrets(account)
    refuse_unknown_options(account, _OPTIONS)
    agents = account.options.get("agents", True) is not False
    own = str(account.options.get("own_actor", ""))
    return Verified(lambda hook: verify(hook, SCHEME, account.secrets), lambda hook: _read(hook, own, agents=agents))


def _read(hook: Hook, own_actor: str, *, agents: bool) -> Event:
    payload = parsed(hook.body)
    if why := _why_not(payload, own_actor, agents=agents):
        return Ignored(why=why)
    ticket, article = required(payload, "ticket.id"), required(payload, "article.id")
    moment = at(payload, "article.updated_at") or at(payload, "ticket.updated_at")
    is_first = _is_first(payload)
    return Incoming(
        kind="ticket" if is_first else "comment",
        ref=ticket if is_first else f"{ticket}/{article}",
        revision=moment_ms(moment, otherwise=hook.received_at),
        text=headed(text_at(payload, "ticket.title") if is_first else "", _body(payload)),
        delivery_id=hook.headers.get("x-zammad-delivery"),
    )


def _why_not(payload: Any, own_actor: str, *, agents: bool) -> str:
    """Why this asks nothing of us; empty where it does."""
    sender = text_at(payload, "article.sender")
    reasons = {
        "other-event": not at(payload, "ticket"),
        "no-new-text": not at(payload, "article"),
        "internal": at(payload, "article.internal") is True,
        "own-echo": bool(own_actor) and text_at(payload, "article.created_by.login") == own_actor,
        "bot": sender == "System",
        "agent": sender == "Agent" and not agents,
    }
    return next((why for why, holds in reasons.items() if holds), "")


def _is_first(payload: Any) -> bool:
    """Whether the article is the one that opened the ticket."""
    ids = at(payload, "ticket.article_ids")
    known = [id_ for id_ in ids if isinstance(id_, int)] if isinstance(ids, list) else []
    if known:
        return bool(at(payload, "article.id") == min(known))
    return text_at(payload, "ticket.article_count") == "1"


def _body(payload: Any) -> str:
    body = text_at(payload, "article.body")
    return text_of_html(body) if "html" in text_at(payload, "article.content_type") else body


def outbound(account: Account) -> "Zammad":
    """The way to this account's tickets.

    Raises:
        SettingsError: It has no token, or no base URL.
    """
    return Zammad(account)


class Zammad:
    """Tags of tickets. A ticket is its id."""

    def __init__(self, account: Account) -> None:
        self._client = client_of(account, {"Authorization": f"Token token={token_of(account)}"})

    def ticket_of(self, ref: str) -> str:
        """The ticket."""
        return ref.partition("/")[0]

    def tag_of(self, label: str) -> str:
        """Tags are free text."""
        return label

    def known_tags(self) -> frozenset[str] | None:
        """The tags of the system."""
        return frozenset(text_at(tag, "name") for tag in call(self._client, "GET", "/api/v1/tag_list") or [])

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The ticket's tags."""
        tags = at(call(self._client, "GET", "/api/v1/tags", params={"object": "Ticket", "o_id": ticket}), "tags")
        return frozenset(map(str, tags or []))

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """One call a tag."""
        for tag in sorted(tags):
            call(self._client, "POST", "/api/v1/tags/add", json={"item": tag, "object": "Ticket", "o_id": ticket})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """One call a tag."""
        for tag in sorted(tags):
            call(self._client, "DELETE", "/api/v1/tags/remove", json={"item": tag, "object": "Ticket", "o_id": ticket})

    def suggest(self, ticket: str, note: str) -> None:
        """An internal article."""
        article = {"ticket_id": quote(ticket, safe=""), "body": note, "type": "note", "internal": True}
        call(self._client, "POST", "/api/v1/ticket_articles", json=article)
