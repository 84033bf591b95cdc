"""Whether a request comes from whom it says: one table of schemes over the raw bytes, compared in constant time."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import SecretStr

from integrations.system import Hook, Unverified

Signed = Literal["body", "ts+body", "ts.body", "id.ts.body"]
"""What is signed: the body alone, or with the timestamp and the delivery's id before it."""
Algorithm = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64"]

TOLERANCE_S: Final = 300.0
"""A timestamp may differ from our clock by so much, either way; what is older may be a replay."""
_STANDARD_PREFIX: Final = "whsec_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a system signs."""

    header: str
    """Lower-case name of the header with the signature; it may hold several, separated by spaces."""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    """Stands before each signature, such as ``sha256=``."""
    signed: Signed = "body"
    timestamp_header: str = ""
    id_header: str = ""


HUB: Final = Scheme(header="x-hub-signature-256", prefix="sha256=")
"""GitHub's, and of many after it."""
STANDARD_WEBHOOKS: Final = Scheme(
    header="webhook-signature",
    encoding="base64",
    prefix="v1,",
    signed="id.ts.body",
    timestamp_header="webhook-timestamp",
    id_header="webhook-id",
)
"""Standard Webhooks 1.0; its keys are base64 behind ``whsec_``."""


def verify(hook: Hook, scheme: Scheme, secrets: Sequence[SecretStr], *, tolerance_s: float = TOLERANCE_S) -> None:
    """Return if any of the secrets made the signature.

    Raises:
        Unverified: None did, the signature is missing, or its timestamp is too far from now.
    """
    given = hook.headers.get(scheme.header, "")
    if not given:
        raise Unverified("missing", f"the header {scheme.header} is missing")
    timestamp = hook.headers.get(scheme.timestamp_header, "") if scheme.timestamp_header else ""
    signed = _signed(scheme.signed, timestamp, hook.headers.get(scheme.id_header, ""), hook.body)
    candidates = [part.removeprefix(scheme.prefix) for part in given.split(" ") if part.startswith(scheme.prefix)]
    expected = [_digest(scheme, key, signed) for key in map(_key, secrets)]
    if not _any_equal(candidates, expected):
        raise Unverified("wrong", f"the signature in {scheme.header} is not of this body and this secret")
    if scheme.timestamp_header:  # signed as well, so looked at last
        refuse_old(timestamp, hook.received_at, tolerance_s=tolerance_s)


def verify_token(given: str, secrets: Sequence[SecretStr], *, header: str) -> None:
    """Return if this is any of the secrets itself.

    Raises:
        Unverified: It is not.
    """
    if not given:
        raise Unverified("missing", f"the header {header} is missing")
    if not _any_equal([given], [secret.get_secret_value() for secret in secrets]):
        raise Unverified("wrong", f"the token in {header} is not this account's")


def refuse_old(timestamp: str, now: float, *, tolerance_s: float) -> None:
    """Return if the timestamp, in seconds or ISO 8601, is near enough to now.

    Raises:
        Unverified: It is not.
    """
    try:
        at = float(timestamp) if timestamp.isdecimal() else datetime.fromisoformat(timestamp).timestamp()
    except (ValueError, OverflowError):
        raise Unverified("old", "the timestamp cannot be read") from None
    if abs(now - at) > tolerance_s:
        raise Unverified("old", f"the timestamp is more than {tolerance_s:g} s away from our clock")


def _signed(signed: Signed, timestamp: str, id_: str, body: bytes) -> bytes:
    match signed:
        case "body":
            return body
        case "ts+body":
            return timestamp.encode() + body
        case "ts.body":
            return f"{timestamp}.".encode() + body
        case "id.ts.body":
            return f"{id_}.{timestamp}.".encode() + body


def _key(secret: SecretStr) -> bytes:
    value = secret.get_secret_value()
    if value.startswith(_STANDARD_PREFIX):
        try:
            return base64.b64decode(value.removeprefix(_STANDARD_PREFIX), validate=True)
        except binascii.Error:
            pass
    return value.encode()


def _digest(scheme: Scheme, key: bytes, signed: bytes) -> str:
    digest = hmac.digest(key, signed, scheme.algorithm)
    return digest.hex() if scheme.encoding == "hex" else base64.b64encode(digest).decode()


def _any_equal(given: Iterable[str], expected: Iterable[str]) -> bool:
    """Every pair is compared, whichever is found equal."""
    wanted = [value.encode("utf-8", "replace") for value in expected]
    found = [hmac.compare_digest(value.encode("utf-8", "replace"), want) for value in given for want in wanted]
    return any(found)


def lark_signature(*, timestamp: str, nonce: str, encrypt_key: str, body: bytes) -> str:
    """Feishu's and Lark's own scheme, which is no HMAC."""
    return hashlib.sha256((timestamp + nonce + encrypt_key).encode() + body).hexdigest()
