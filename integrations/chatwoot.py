"""Chatwoot: customers' messages become comments, labels of the conversation are tags.

    [chat]
    system = "chatwoot"
    base_url = "https://chat.example"
    secrets = ["env:CHATWOOT_HOOK_SECRET"]
    token = "env:CHATWOOT_TOKEN"                     # an agent's access token
    label_sets = ["intent"]
    options = { account_id = "1" }

Verified against Chatwoot's documentation: ``message_created``, ``message_type``, and that setting labels replaces
the list, so that what is there is read first. Not verified: the signature of recent versions, HMAC-SHA256 over
timestamp, a dot and the body; older versions do not sign and cannot be connected this way. Revision: ``created_at``
of the message. A label has to exist before it shows. ``own_actor`` is the id of a sender.
"""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import client_of
from integrations.inbox import Verified, refuse_unknown_options, require_secrets, tolerance_s
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at, text_of_html
from integrations.signatures import TOLERANCE_S, Scheme, verify
from integrations.system import Event, Hook, Ignored, Inbound, Incoming
from tagging.errors import SettingsError

SCHEME: Final = Scheme(
    header="x-chatwoot-signature", prefix="sha256=", signed="ts.body", timestamp_header="x-chatwoot-timestamp"
)
_OPTIONS: Final = ("own_actor", "account_id", "tolerance_s")


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no secret, or options that nobody knows.
    """
    require_secrets(account)
    refuse_unknown_options(account, _OPTIONS)
    within_s = tolerance_s(account, TOLERANCE_S)
    own = str(account.options.get("own_actor", ""))
    return Verified(
        lambda hook: verify(hook, SCHEME, account.secrets, tolerance_s=within_s), lambda hook: _read(hook, own)
    )


def _read(hook: Hook, own_actor: str) -> Event:
    payload = parsed(hook.body)
    if text_at(payload, "event") not in ("message_created", "message_updated"):
        return Ignored(why="other-event")
    if text_at(payload, "message_type") not in ("incoming", "0"):
        return Ignored(why="agent")  # ours among them: what we write is outgoing
    if own_actor and text_at(payload, "sender.id") == own_actor:
        return Ignored(why="own-echo")
    if at(payload, "private") is True:
        return Ignored(why="internal")
    return Incoming(
        kind="comment",
        ref=f"{_conversation(payload)}/{required(payload, 'id')}",
        revision=moment_ms(at(payload, "updated_at") or at(payload, "created_at"), otherwise=hook.received_at),
        text=headed("", text_of_html(text_at(payload, "content"))),
        delivery_id=hook.headers.get("x-chatwoot-delivery"),
    )


def _conversation(payload: Any) -> str:
    """The number that the dashboard and the API know it by, which the documentation's sample calls ``display_id``."""
    return text_at(payload, "conversation.display_id") or required(payload, "conversation.id")


def outbound(account: Account) -> "Chatwoot":
    """The way to this account's conversations.

    Raises:
        SettingsError: It has no token, no base URL or no ``account_id``.
    """
    return Chatwoot(account)


class Chatwoot:
    """Labels of conversations. A ticket is the conversation's id."""

    def __init__(self, account: Account) -> None:
        number = str(account.options.get("account_id", ""))
        if account.token is None or not number:
            raise SettingsError([f"{account.name}: token and options.account_id are needed to set labels"])
        self._root = f"/api/v1/accounts/{quote(number, safe='')}"
        self._client = client_of(account, {"api_access_token": account.token.get_secret_value()})

    def ticket_of(self, ref: str) -> str:
        """The conversation."""
        return ref.partition("/")[0]

    def tag_of(self, label: str) -> str:
        """Lower case, and no spaces."""
        return "-".join(label.lower().split())

    def known_tags(self) -> frozenset[str] | None:
        """The account's labels."""
        labels = at(call(self._client, "GET", f"{self._root}/labels"), "payload") or []
        return frozenset(text_at(label, "title") for label in labels)

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The conversation's labels."""
        return frozenset(map(str, at(call(self._client, "GET", self._labels(ticket)), "payload") or []))

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Reads and merges, since Chatwoot replaces the list."""
        self._put(ticket, self.tags_of(ticket) | set(tags))

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Reads and writes the others back."""
        self._put(ticket, self.tags_of(ticket) - set(tags))

    def suggest(self, ticket: str, note: str) -> None:
        """A private message."""
        path = f"{self._root}/conversations/{quote(ticket, safe='')}/messages"
        call(self._client, "POST", path, json={"content": note, "private": True, "message_type": "outgoing"})

    def _put(self, ticket: str, labels: Collection[str]) -> None:
        call(self._client, "POST", self._labels(ticket), json={"labels": sorted(labels)})

    def _labels(self, ticket: str) -> str:
        return f"{self._root}/conversations/{quote(ticket, safe='')}/labels"
