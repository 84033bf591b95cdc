"""Only what a system has signed, with a secret of the account's, now, gets in: row A37."""

import base64
import hmac
import json
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from lark_oapi.core.utils import AESCipher
from standardwebhooks.webhooks import Webhook

from integrations.signatures import HUB, lark_signature, verify
from integrations.system import Event, Handshake, Hook, Inbound, Incoming, Unverified
from tagging.errors import SettingsError
from tests.integrations.senders import (
    FEISHU,
    GENERIC,
    GITLAB,
    GITLAB_TOKEN,
    NOW,
    SENDERS,
    Sender,
    encrypted,
    feishu,
    now,
)

every_sender = pytest.mark.parametrize("sender", SENDERS, ids=lambda s: f"{s.system}{'+ts' if s.timestamped else ''}")


def inbound(sender: Sender, *secrets: str) -> Inbound:
    opened: Inbound = import_module(f"integrations.{sender.system}").inbound(sender.account(*(secrets or ("s3cret",))))
    return opened


def refusal(sender: Sender, hook: Hook, *secrets: str) -> str:
    """Why it was refused."""
    with pytest.raises(Unverified) as refused:
        inbound(sender, *secrets).receive(hook)
    assert "s3cret" not in str(refused.value)
    return refused.value.why


@every_sender
def test_a_good_signature_is_taken(sender: Sender) -> None:
    assert isinstance(inbound(sender).receive(sender.hook()), Incoming)


@every_sender
def test_while_a_secret_is_replaced_both_are_taken(sender: Sender) -> None:
    for secret in ("old", "new"):
        assert isinstance(inbound(sender, "old", "new").receive(sender.hook(secret=secret)), Incoming)


@every_sender
def test_another_secret_is_refused(sender: Sender) -> None:
    assert refusal(sender, sender.hook(secret="another")) == "wrong"


# A token signs no body; that is why GitLab has signatures now.
@pytest.mark.parametrize("sender", [s for s in SENDERS if s is not GITLAB_TOKEN], ids=lambda s: s.system)
def test_a_body_that_was_changed_is_refused(sender: Sender) -> None:
    hook = sender.hook()
    assert refusal(sender, replace(hook, body=hook.body.replace(b"e", b"x", 1))) == "wrong"


@every_sender
def test_no_signature_is_refused(sender: Sender) -> None:
    assert refusal(sender, replace(sender.hook(), headers=sender.headers)) == "missing"


@pytest.mark.parametrize("sender", [s for s in SENDERS if s.timestamped], ids=lambda s: s.system)
@pytest.mark.parametrize("at", [NOW - 301, NOW + 301], ids=["old", "from the future"])
def test_an_old_request_is_refused_though_it_is_signed(sender: Sender, at: float) -> None:
    assert refusal(sender, sender.hook(at=at)) == "old"
    assert isinstance(inbound(sender).receive(sender.hook(at=at + (2 if at < NOW else -2))), Incoming)


@pytest.mark.parametrize("sender", [s for s in SENDERS if s.timestamped], ids=lambda s: s.system)
def test_a_timestamp_that_was_changed_is_refused(sender: Sender) -> None:
    hook = sender.hook(at=NOW - 1000)
    fresh = {name: value for name, value in sender.hook(at=NOW).headers.items() if "timestamp" in name}
    assert refusal(sender, replace(hook, headers={**hook.headers, **fresh})) == "wrong"


@every_sender
def test_an_account_without_a_secret_takes_nothing(sender: Sender) -> None:
    account = sender.account("s3cret").model_copy(update={"secrets": ()})
    with pytest.raises(SettingsError, match="secrets: missing"):
        import_module(f"integrations.{sender.system}").inbound(account)


@every_sender
def test_a_misspelt_option_is_named(sender: Sender) -> None:
    account = replace(sender, options={**(sender.options or {}), "own_acter": "us"}).account("s3cret")
    with pytest.raises(SettingsError, match=r"desk\.options\.own_acter: "):
        import_module(f"integrations.{sender.system}").inbound(account)


_SIGNATURE = {"header": "x-signature"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"own_actor": "us"}, "own_actor needs mapping.actor"),
        ({"events": ["created"]}, "events and mapping.event go together"),
        ({"signature": {**_SIGNATURE, "signed": "ts.body"}}, "timestamp_header goes with"),
        ({"signature": {**_SIGNATURE, "timestamp_header": "x-at"}}, "timestamp_header goes with"),
        ({"signature": {**_SIGNATURE, "signed": "id.ts.body", "timestamp_header": "x-at"}}, "id_header goes with"),
    ],
    ids=["actor", "events", "no timestamp", "unsigned timestamp", "no id"],
)
def test_what_would_protect_from_nothing_is_refused_at_the_start(options: dict[str, Any], problem: str) -> None:
    account = replace(GENERIC, options={"mapping": {"ref": "id", "text": "text"}, **options}).account("s3cret")
    with pytest.raises(SettingsError, match=problem):
        import_module("integrations.generic").inbound(account)


def test_githubs_own_published_vector_is_met() -> None:
    account = SENDERS[0].account("It's a Secret to Everybody")
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    verify(
        Hook(headers={"x-hub-signature-256": signature}, body=b"Hello, World!", received_at=NOW), HUB, account.secrets
    )


def test_what_the_standard_webhooks_library_signs_is_taken() -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
    body, at = json.dumps(GITLAB.ticket), now()
    from datetime import UTC, datetime

    signature = Webhook(secret).sign(msg_id="msg_9", timestamp=datetime.fromtimestamp(int(at), UTC), data=body)
    headers = {"webhook-id": "msg_9", "webhook-timestamp": str(int(at)), "webhook-signature": signature}
    taken = inbound(GITLAB, secret).receive(Hook(headers=headers, body=body.encode(), received_at=at))
    assert isinstance(taken, Incoming)
    assert taken.delivery_id == "msg_9"


def test_what_we_encrypt_as_feishu_does_is_read_by_its_own_library() -> None:
    body = encrypted(json.dumps(FEISHU.ticket).encode(), "s3cret")
    opened = AESCipher("s3cret").decrypt_str(json.loads(body)["encrypt"])
    assert json.loads(opened) == FEISHU.ticket
    signature = feishu(body, "s3cret", NOW)["x-lark-signature"]
    ours = lark_signature(timestamp=f"{NOW:.0f}", nonce="n0nce", encrypt_key="s3cret", body=body)
    assert hmac.compare_digest(signature, ours)


def test_feishus_challenge_is_answered_once_it_could_be_decrypted() -> None:
    challenge = {"type": "url_verification", "challenge": "c-1", "token": "v"}
    hook = replace(FEISHU.hook(challenge), headers={})
    answer: Event = inbound(FEISHU).receive(hook)
    assert answer == Handshake(answer={"challenge": "c-1"})
    assert refusal(FEISHU, hook, "another") == "wrong"
    plain = replace(hook, body=json.dumps(challenge).encode())
    assert refusal(FEISHU, plain) == "missing"


def test_an_event_of_feishu_without_a_signature_is_refused() -> None:
    assert refusal(FEISHU, replace(FEISHU.hook(), headers={})) == "missing"


def test_all_in_all_nothing_bad_got_in() -> None:
    bad = 0
    for sender in SENDERS:
        good = sender.hook()
        tampered = [sender.hook(secret="x"), replace(good, headers=sender.headers), sender.hook(secret="")]
        tampered += [sender.hook(at=NOW - 400)] if sender.timestamped else []
        for hook in tampered:
            try:
                inbound(sender).receive(hook)
            except Unverified:
                continue
            bad += 1
    print(f"FIGURE webhook_signatures sources={len(SENDERS)} bad_accepted={bad}")
    assert bad == 0
