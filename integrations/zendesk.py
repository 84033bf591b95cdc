"""Zendesk: event webhooks of new tickets and comments; tags are tags.

    [shop]
    system = "zendesk"
    base_url = "https://shop.zendesk.com"
    secrets = ["env:ZENDESK_SIGNING_SECRET"]
    token = "env:ZENDESK_TOKEN"                      # agent@shop.example/token:APITOKEN
    label_sets = ["intent"]
    options = { own_actor = "1234567890" }           # id of the agent whose token it is

Verified against Zendesk's documentation: the event types ``ticket.created``, ``ticket.subject_changed``,
``ticket.description_changed`` and ``ticket.comment_added``, and the signature, base64 of HMAC-SHA256 over timestamp
and body. Not verified here: that ``PUT …/tags`` adds (``POST`` replaces all), and that tags are kept in lower case
without spaces. Webhooks of triggers have a body of your own making: use ``generic``. Revision: the event's ``time``.
Internal comments are left alone; with ``agents = false`` in the options those of agents as well.
"""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import basic, client_of, token_of
from integrations.inbox import Verified, refuse_unknown_options, require_secrets, tolerance_s
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at
from integrations.signatures import TOLERANCE_S, Scheme, verify
from integrations.system import Event, Hook, Ignored, Inbound, Incoming

SCHEME: Final = Scheme(
    header="x-zendesk-webhook-signature",
    encoding="base64",
    signed="ts+body",
    timestamp_header="x-zendesk-webhook-signature-timestamp",
)
_EVENT: Final = "zen:event-type:ticket."
_TICKETS: Final = ("created", "subject_changed", "description_changed")
_COMMENT: Final = "comment_added"
_OPTIONS: Final = ("own_actor", "agents", "tolerance_s")


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no secret, or options that nobody knows.
    """
    require_secrets(account)
    refuse_unknown_options(account, _OPTIONS)
    agents = account.options.get("agents", True) is not False
    own, within_s = str(account.options.get("own_actor", "")), tolerance_s(account, TOLERANCE_S)
    return Verified(
        lambda hook: verify(hook, SCHEME, account.secrets, tolerance_s=within_s),
        lambda hook: _read(hook, own, agents=agents),
    )


def _read(hook: Hook, own_actor: str, *, agents: bool) -> Event:
    payload = parsed(hook.body)
    event = text_at(payload, "type").removeprefix(_EVENT)
    if event not in (*_TICKETS, _COMMENT):
        return Ignored(why="other-event")
    actors = {text_at(payload, "detail.actor_id"), text_at(payload, "event.comment.author.id")}
    if own_actor and own_actor in actors:
        return Ignored(why="own-echo")
    ticket, revision = required(payload, "detail.id"), moment_ms(at(payload, "time"), otherwise=hook.received_at)
    delivery = text_at(payload, "id") or None
    if event in _TICKETS:
        text = headed(text_at(payload, "detail.subject"), text_at(payload, "detail.description"))
        return Incoming(kind="ticket", ref=ticket, revision=revision, text=text, delivery_id=delivery)
    if not agents and at(payload, "event.comment.author.is_staff") is True:
        return Ignored(why="agent")
    return _comment(payload, ticket, revision, delivery)


def _comment(payload: Any, ticket: str, revision: int, delivery: str | None) -> Event:
    if at(payload, "event.comment.is_public") is False:
        return Ignored(why="internal")
    ref = f"{ticket}/{required(payload, 'event.comment.id')}"
    text = headed("", text_at(payload, "event.comment.body"))
    return Incoming(kind="comment", ref=ref, revision=revision, text=text, delivery_id=delivery)


def outbound(account: Account) -> "Zendesk":
    """The way to this account's tickets.

    Raises:
        SettingsError: It has no token, or no base URL.
    """
    return Zendesk(account)


class Zendesk:
    """Tags of tickets. A ticket is its id."""

    def __init__(self, account: Account) -> None:
        self._client = client_of(account, {"Authorization": basic(token_of(account))})

    def ticket_of(self, ref: str) -> str:
        """The ticket."""
        return ref.partition("/")[0]

    def tag_of(self, label: str) -> str:
        """Lower case, and no spaces."""
        return "_".join(label.lower().split())

    def known_tags(self) -> frozenset[str] | None:
        """The account's tags, up to ten thousand."""
        names: set[str] = set()
        for page in range(1, 101):
            tags = at(call(self._client, "GET", "/api/v2/tags.json", params={"per_page": 100, "page": page}), "tags")
            names |= {text_at(tag, "name") for tag in tags or []}
            if len(tags or []) < 100:
                break
        return frozenset(names)

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The ticket's tags."""
        return frozenset(map(str, at(call(self._client, "GET", _path(ticket)), "tags") or []))

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """PUT adds; POST, which is not used, would replace all."""
        call(self._client, "PUT", _path(ticket), json={"tags": sorted(tags)})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Takes these off, and no other."""
        call(self._client, "DELETE", _path(ticket), json={"tags": sorted(tags)})

    def suggest(self, ticket: str, note: str) -> None:
        """A private comment."""
        path = f"/api/v2/tickets/{quote(ticket, safe='')}.json"
        call(self._client, "PUT", path, json={"ticket": {"comment": {"body": note, "public": False}}})


def _path(ticket: str) -> str:
    return f"/api/v2/tickets/{quote(ticket, safe='')}/tags.json"
