"""What each system sends, written after its documented shapes, and signed as it signs."""

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from integrations.accounts import Account
from integrations.system import Hook

NOW = 1_795_600_000.0
TEXT = "快递三天没动了，能退款吗？"
TITLE = "退款"
Payload = dict[str, Any]
Signer = Callable[[bytes, str, float], dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A system that sends webhooks."""

    system: str
    sign: Signer
    ticket: Payload
    """Of a new ticket; of a new comment where tickets have no text."""
    headers: dict[str, str]
    timestamped: bool
    ref: str
    kind: str = "ticket"
    options: dict[str, Any] | None = None

    def account(self, *secrets: str) -> Account:
        """An account that knows these secrets."""
        os.environ.update({f"SECRET_{i}": secret for i, secret in enumerate(secrets)})
        table = {
            "name": "desk",
            "system": self.system,
            "secrets": [f"env:SECRET_{i}" for i in range(len(secrets))],
            "label_sets": ["intent"],
            "options": self.options or {},
        }
        return Account.model_validate(table, context=dict(os.environ))

    def hook(self, payload: Payload | None = None, *, secret: str = "s3cret", at: float = NOW, **headers: str) -> Hook:
        """A signed request, that arrives at ``NOW``."""
        body = self.body(self.ticket if payload is None else payload, secret)
        signed = {**self.headers, **self.sign(body, secret, at), **headers}
        return Hook(headers=signed, body=body, received_at=NOW)

    def body(self, payload: Payload, secret: str) -> bytes:
        """The raw body."""
        raw = json.dumps(payload, ensure_ascii=not _storable(payload)).encode()
        return encrypted(raw, secret) if self.system == "feishu" else raw


def _storable(payload: Payload) -> bool:
    """Whether UTF-8 can hold it; a lone surrogate comes as an escape."""
    try:
        json.dumps(payload, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def hex_hmac(secret: str, signed: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(secret.encode(), signed, algorithm).hexdigest()


def base64_hmac(secret: str, signed: bytes) -> str:
    return base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def encrypted(raw: bytes, key: str) -> bytes:
    padder = PKCS7(128).padder()
    padded = padder.update(raw) + padder.finalize()
    vector = b"0123456789abcdef"
    cipher = Cipher(algorithms.AES(hashlib.sha256(key.encode()).digest()), modes.CBC(vector)).encryptor()
    data = vector + cipher.update(padded) + cipher.finalize()
    return json.dumps({"encrypt": base64.b64encode(data).decode()}).encode()


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def zendesk(body: bytes, secret: str, at: float) -> dict[str, str]:
    return {
        "x-zendesk-webhook-signature": base64_hmac(secret, iso(at).encode() + body),
        "x-zendesk-webhook-signature-timestamp": iso(at),
    }


def chatwoot(body: bytes, secret: str, at: float) -> dict[str, str]:
    signature = hex_hmac(secret, f"{at:.0f}.".encode() + body)
    return {"x-chatwoot-signature": f"sha256={signature}", "x-chatwoot-timestamp": f"{at:.0f}"}


def standard(body: bytes, secret: str, at: float) -> dict[str, str]:
    signature = base64_hmac(secret, f"msg_1.{at:.0f}.".encode() + body)
    return {"webhook-id": "msg_1", "webhook-timestamp": f"{at:.0f}", "webhook-signature": f"v1,{signature}"}


def feishu(body: bytes, secret: str, at: float) -> dict[str, str]:
    signature = hashlib.sha256(f"{at:.0f}n0nce{secret}".encode() + body).hexdigest()
    return {
        "x-lark-request-timestamp": f"{at:.0f}",
        "x-lark-request-nonce": "n0nce",
        "x-lark-signature": signature,
    }


GITHUB = Sender(
    system="github",
    sign=lambda body, secret, at: {"x-hub-signature-256": f"sha256={hex_hmac(secret, body)}"},
    ticket={
        "action": "opened",
        "issue": {
            "number": 12,
            "title": TITLE,
            "body": TEXT,
            "updated_at": "2026-11-25T10:00:00Z",
            "labels": [{"name": "bug"}],
        },
        "repository": {"full_name": "owner/repo"},
        "sender": {"login": "customer", "type": "User"},
    },
    headers={"x-github-event": "issues", "x-github-delivery": "d-1"},
    timestamped=False,
    ref="owner/repo#12",
    options={"own_actor": "tagmill"},
)
_GITLAB_ISSUE = {
    "object_kind": "issue",
    "user": {"username": "customer"},
    "project": {"path_with_namespace": "group/project"},
    "object_attributes": {
        "iid": 23,
        "title": TITLE,
        "description": TEXT,
        "action": "open",
        "updated_at": "2026-11-25 10:00:00 UTC",
    },
}
GITLAB = Sender(
    system="gitlab",
    sign=standard,
    ticket=_GITLAB_ISSUE,
    headers={"x-gitlab-event": "Issue Hook"},
    timestamped=True,
    ref="group/project#23",
    options={"own_actor": "tagmill"},
)
GITLAB_TOKEN = Sender(
    system="gitlab",
    sign=lambda body, secret, at: {"x-gitlab-token": secret},
    ticket=_GITLAB_ISSUE,
    headers={"x-gitlab-event": "Issue Hook", "idempotency-key": "u-1"},
    timestamped=False,
    ref="group/project#23",
    options={"own_actor": "tagmill"},
)
ZENDESK = Sender(
    system="zendesk",
    sign=zendesk,
    ticket={
        "type": "zen:event-type:ticket.created",
        "id": "e-1",
        "time": "2026-11-25T10:00:00.000Z",
        "subject": "zen:ticket:5158",
        "detail": {"id": "5158", "subject": TITLE, "description": TEXT, "actor_id": "77", "tags": []},
        "event": {},
    },
    headers={},
    timestamped=True,
    ref="5158",
    options={"own_actor": "99"},
)
FEISHU = Sender(
    system="feishu",
    sign=feishu,
    ticket={
        "schema": "2.0",
        "header": {
            "event_id": "f-1",
            "event_type": "helpdesk.ticket_message.created_v1",
            "create_time": "1795600000000",
            "token": "v",
        },
        "event": {
            "ticket_message_id": "m-9",
            "sender_type": 2,
            "text": TEXT,
            "ticket": {"ticket_id": "6626871355780366331", "stage": 1},
        },
    },
    headers={},
    timestamped=True,
    ref="6626871355780366331/m-9",
    kind="comment",
    options={"own_actor": "ou_us"},
)
CHATWOOT = Sender(
    system="chatwoot",
    sign=chatwoot,
    ticket={
        "event": "message_created",
        "id": 31,
        "content": f"<p>{TEXT}</p>",
        "message_type": "incoming",
        "created_at": "2026-11-25T10:00:00Z",
        "private": False,
        "conversation": {"id": 8, "labels": []},
        "account": {"id": 1},
    },
    headers={"x-chatwoot-delivery": "c-1"},
    timestamped=True,
    ref="8/31",
    kind="comment",
    options={"own_actor": "3"},
)
ZAMMAD = Sender(
    system="zammad",
    sign=lambda body, secret, at: {"x-hub-signature": f"sha1={hex_hmac(secret, body, 'sha1')}"},
    ticket={
        "ticket": {"id": 81, "title": TITLE, "article_ids": [109], "updated_at": "2026-11-25T09:00:00.000Z"},
        "article": {
            "id": 109,
            "body": f"<div>{TEXT}</div>",
            "content_type": "text/html",
            "internal": False,
            "sender": "Customer",
            "updated_at": "2026-11-25T10:00:00.000Z",
        },
    },
    headers={"x-zammad-delivery": "z-1"},
    timestamped=False,
    ref="81",
    options={"own_actor": "tagmill"},
)
JIRA = Sender(
    system="jira",
    sign=lambda body, secret, at: {"x-hub-signature": f"sha256={hex_hmac(secret, body)}"},
    ticket={
        "webhookEvent": "jira:issue_created",
        "timestamp": 1795600000000,
        "user": {"accountId": "a-1", "accountType": "atlassian"},
        "issue": {
            "key": "OPS-7",
            "fields": {
                "summary": TITLE,
                "description": {
                    "type": "doc",
                    "version": 1,
                    "content": [{"type": "paragraph", "content": [{"type": "text", "text": TEXT}]}],
                },
                "updated": "2026-11-25T10:00:00.000+0000",
                "labels": [],
            },
        },
    },
    headers={"x-atlassian-webhook-identifier": "j-1"},
    timestamped=False,
    ref="OPS-7",
    options={"own_actor": "us"},
)
GENERIC = Sender(
    system="generic",
    sign=lambda body, secret, at: {
        "x-signature": "v1=" + base64_hmac(secret, f"{at:.0f}".encode() + body),
        "x-timestamp": f"{at:.0f}",
    },
    ticket={
        "delivery": "g-1",
        "event": "ticket.created",
        "user": {"login": "customer"},
        "tickets": [{"id": 5, "title": TITLE, "text": TEXT, "modified": 1795600000}],
    },
    headers={},
    timestamped=True,
    ref="5",
    options={
        "own_actor": "tagmill",
        "events": ["ticket.created"],
        "mapping": {
            "ref": "tickets[0].id",
            "title": "tickets[0].title",
            "text": "tickets[0].text",
            "revision": "tickets[0].modified",
            "delivery_id": "delivery",
            "actor": "user.login",
            "event": "event",
        },
        "signature": {
            "header": "X-Signature",
            "encoding": "base64",
            "prefix": "v1=",
            "signed": "ts+body",
            "timestamp_header": "X-Timestamp",
        },
    },
)
SENDERS = (GITHUB, GITLAB, GITLAB_TOKEN, ZENDESK, FEISHU, CHATWOOT, ZAMMAD, JIRA, GENERIC)


def now() -> float:
    """For systems that compare with their own clock."""
    return time.time()
