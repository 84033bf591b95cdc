"""Feishu and Lark 服务台 (helpdesk): customers' messages become comments, tag names of the ticket are tags.

    [helpdesk]
    system = "feishu"
    base_url = "https://open.feishu.cn"
    secrets = ["env:FEISHU_ENCRYPT_KEY"]
    token = "env:FEISHU_TOKEN"                       # app secret, a colon, helpdesk token
    label_sets = ["intent"]
    options = { app_id = "cli_…", helpdesk_id = "…" }

Verified against the vendor's own SDK (``lark-oapi``), which the tests use: the signature, SHA-256 over timestamp,
nonce, key and body; the AES body; the challenge. Verified against its documentation: that
``helpdesk.ticket.created_v1`` has no text, so that a ticket's first message stands for it. Not verified: whether
setting ``tag_names`` adds or replaces; what is there is read first, so that both come to the same. An account
without an Encrypt Key cannot be connected: nothing would be signed. Revision: the event's ``create_time``.
Everybody's messages are read but those of ``own_actor``, an open id; ``senders``, a list of ``sender_type`` codes,
narrows that down. There is no note for agents: nothing is suggested.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import client_of
from integrations.inbox import refuse_unknown_options, require_secrets, tolerance_s
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at
from integrations.signatures import TOLERANCE_S, lark_signature, refuse_old
from integrations.system import (
    Declined,
    Event,
    Handshake,
    Hook,
    Ignored,
    Inbound,
    Incoming,
    Unavailable,
    Unreadable,
    Unverified,
)
from tagging.errors import SettingsError

_BLOCK_BITS: Final = 128
_MESSAGE: Final = "helpdesk.ticket_message.created_v1"
_EARLY_S: Final = 300.0
_OPTIONS: Final = ("own_actor", "senders", "app_id", "helpdesk_id", "tolerance_s")


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no Encrypt Key, or options that nobody knows.
    """
    require_secrets(account)
    refuse_unknown_options(account, _OPTIONS)
    return Feishu(account)


class Feishu:
    """An ``Inbound`` whose bodies are encrypted."""

    def __init__(self, account: Account) -> None:
        self._keys = [key.get_secret_value() for key in account.secrets]
        self._within_s = tolerance_s(account, TOLERANCE_S)
        self._own_actor = str(account.options.get("own_actor", ""))
        self._senders = frozenset(map(str, account.options.get("senders", ())))

    def receive(self, hook: Hook) -> Event:
        """See ``Inbound``. A challenge is not signed; that it could be decrypted proves it."""
        is_signed = "x-lark-signature" in hook.headers
        if is_signed:
            self._verify(hook)
        encrypted = text_at(parsed(hook.body), "encrypt")
        if not encrypted:
            raise Unverified("missing", "the body is not encrypted; set an Encrypt Key for this app")
        payload = self._opened(encrypted)
        if text_at(payload, "type") == "url_verification":
            return _handshake(payload)
        if not is_signed:
            raise Unverified("missing", "the header x-lark-signature is missing")
        return _read(hook, payload, own_actor=self._own_actor, senders=self._senders)

    def _verify(self, hook: Hook) -> None:
        timestamp, nonce = (hook.headers.get(f"x-lark-request-{name}", "") for name in ("timestamp", "nonce"))
        given = hook.headers["x-lark-signature"].encode("utf-8", "replace")
        expected = [
            lark_signature(timestamp=timestamp, nonce=nonce, encrypt_key=key, body=hook.body).encode()
            for key in self._keys
        ]
        equal = [hmac.compare_digest(given, one) for one in expected]  # all of them, whichever is
        if not any(equal):
            raise Unverified("wrong", "the signature in x-lark-signature is not of this body and this key")
        refuse_old(timestamp, hook.received_at, tolerance_s=self._within_s)

    def _opened(self, encrypted: str) -> dict[str, Any]:
        for key in self._keys:
            try:
                return parsed(decrypt(encrypted, key))
            except (ValueError, Unreadable):
                continue
        raise Unverified("wrong", "the body cannot be decrypted with this account's key")


def decrypt(encrypted: str, key: str) -> bytes:
    """The body: AES-256 in CBC mode, its key the SHA-256 of the Encrypt Key, its first block the vector.

    Raises:
        ValueError: It was not encrypted with this key.
    """
    try:
        data = base64.b64decode(encrypted, validate=True)
    except binascii.Error as e:
        raise ValueError("no base64") from e
    cipher = Cipher(algorithms.AES(hashlib.sha256(key.encode()).digest()), modes.CBC(data[:16])).decryptor()
    padded = cipher.update(data[16:]) + cipher.finalize()
    unpadder = PKCS7(_BLOCK_BITS).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def _handshake(payload: Any) -> Handshake:
    challenge = required(payload, "challenge")
    if not challenge.isprintable():
        raise Unreadable("challenge: expected printable characters")
    return Handshake(answer={"challenge": challenge})


def _read(hook: Hook, payload: Any, *, own_actor: str, senders: Collection[str]) -> Event:
    if text_at(payload, "header.event_type") != _MESSAGE:
        return Ignored(why="other-event")
    if own_actor and text_at(payload, "event.sender_id.open_id") == own_actor:
        return Ignored(why="own-echo")
    if senders and text_at(payload, "event.sender_type") not in senders:
        return Ignored(why="sender")
    ticket = required(payload, "event.ticket.ticket_id")
    message = text_at(payload, "event.ticket_message_id") or required(payload, "event.message_id")
    return Incoming(
        kind="comment",
        ref=f"{ticket}/{message}",
        revision=moment_ms(at(payload, "header.create_time"), otherwise=hook.received_at),
        text=headed("", _text(payload)),
        delivery_id=text_at(payload, "header.event_id") or None,
    )


def _text(payload: Any) -> str:
    """What the customer wrote; ``content`` may be JSON in a text."""
    if text := text_at(payload, "event.text") or text_at(payload, "event.content.content"):
        return text
    try:
        return text_at(json.loads(text_at(payload, "event.content")), "text")
    except (ValueError, RecursionError):
        return ""


def outbound(account: Account) -> "Helpdesk":
    """The way to this account's tickets.

    Raises:
        SettingsError: Something that it needs is missing.
    """
    return Helpdesk(account)


class Helpdesk:
    """Tag names of tickets. A ticket is its id."""

    def __init__(self, account: Account) -> None:
        secret, _, helpdesk_token = (account.token.get_secret_value() if account.token else "").partition(":")
        app_id, helpdesk_id = (str(account.options.get(name, "")) for name in ("app_id", "helpdesk_id"))
        if not (secret and helpdesk_token and app_id and helpdesk_id):
            raise SettingsError(
                [f"{account.name}: token (app secret:helpdesk token), options.app_id and helpdesk_id are needed"]
            )
        self._login = {"app_id": app_id, "app_secret": secret}
        desk = base64.b64encode(f"{helpdesk_id}:{helpdesk_token}".encode()).decode()
        self._client = client_of(account, {"X-Lark-Helpdesk-Authorization": desk})
        self._valid_until = 0.0

    def ticket_of(self, ref: str) -> str:
        """The ticket."""
        return ref.partition("/")[0]

    def tag_of(self, label: str) -> str:
        """Tag names are free text."""
        return label

    def known_tags(self) -> frozenset[str] | None:
        """There is no list of them."""
        return None

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The ticket's tag names."""
        found = at(self._ask("GET", ticket), "data.ticket.tags") or []
        return frozenset(text_at(tag, "name") or str(tag) for tag in found)

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Reads and merges, in case the list is replaced."""
        self._ask("PUT", ticket, {"tag_names": sorted(self.tags_of(ticket) | set(tags))})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Reads and writes the others back."""
        self._ask("PUT", ticket, {"tag_names": sorted(self.tags_of(ticket) - set(tags))})

    def suggest(self, ticket: str, note: str) -> None:  # noqa: ARG002  # there is nowhere to put it
        """Not possible."""
        raise Declined('the helpdesk has no note that customers do not see; use mode = "apply"')

    def _ask(self, method: str, ticket: str, body: Any = None) -> Any:
        self._sign_in()
        answer = call(self._client, method, f"/open-apis/helpdesk/v1/tickets/{quote(ticket, safe='')}", json=body)
        if code := at(answer, "code"):
            raise Declined(f"{method} helpdesk ticket: code {code}")
        return answer

    def _sign_in(self) -> None:
        """A tenant's token lasts two hours; a new one is fetched five minutes before."""
        if time.monotonic() < self._valid_until:
            return
        answer = call(self._client, "POST", "/open-apis/auth/v3/tenant_access_token/internal", json=self._login)
        token, lasts_s = text_at(answer, "tenant_access_token"), at(answer, "expire")
        if not token or not isinstance(lasts_s, int):
            raise Unavailable(f"signing in: code {at(answer, 'code')}")
        self._client.headers = httpx.Headers({**self._client.headers, "Authorization": f"Bearer {token}"})
        self._valid_until = time.monotonic() + lasts_s - _EARLY_S
