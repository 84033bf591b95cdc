"""Any system that can post JSON: what its fields are called, how it signs, and where tags go, are said in the
account.

    [inhouse]
    system = "generic"
    base_url = "https://desk.example/api"
    secrets = ["env:INHOUSE_SECRET"]
    token = "env:INHOUSE_TOKEN"
    label_sets = ["intent"]
    [inhouse.options]
    kind = "ticket"                                  # of all, or of those that `mapping.kind` does not name
    own_actor = "tagmill"
    [inhouse.options.mapping]                        # paths such as ticket.articles[0].body
    ref = "ticket.id"
    title = "ticket.title"
    text = "ticket.description"
    revision = "ticket.modified"
    delivery_id = "delivery"
    actor = "user.login"
    [inhouse.options.signature]                      # none: `Authorization: Bearer` with the secret itself
    header = "x-signature"
    algorithm = "sha256"                             # sha1, sha256, sha512
    encoding = "hex"                                 # hex, base64
    prefix = "sha256="
    signed = "ts.body"                               # body, ts+body, ts.body, id.ts.body
    timestamp_header = "x-timestamp"
    [inhouse.options.tags]                           # where tags are sent; none: nothing is written back
    method = "POST"
    path = "/tickets/{ticket}/tags"

Tags are sent as ``{"add": […], "remove": […]}``, suggestions as ``{"note": "…"}``. A ``ref`` with a slash belongs to
the ticket before the slash. Without ``revision`` the time of arrival counts, so that the last one to arrive stands.
"""

from collections.abc import Collection
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from integrations.accounts import Account
from integrations.calls import call
from integrations.inbox import Verified, require_secrets, tolerance_s
from integrations.outbound import open_client
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at, text_of_html
from integrations.signatures import TOLERANCE_S, Algorithm, Encoding, Scheme, Signed, verify, verify_token
from integrations.system import Declined, Event, Hook, Ignored, Inbound, Incoming
from tagging.errors import SettingsError
from tagging.names import Kind

_BEARER: Final = "authorization"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mapped(_Table):
    """Where the payload has what; paths."""

    ref: str
    text: str
    title: str = ""
    kind: str = ""
    revision: str = ""
    delivery_id: str = ""
    actor: str = ""


class Signature(_Table):
    """How it signs."""

    header: str
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    signed: Signed = "body"
    timestamp_header: str = ""
    id_header: str = ""


class TagsRoute(_Table):
    """Where tags are sent."""

    method: Literal["POST", "PUT", "PATCH"] = "POST"
    path: str = Field(pattern=r"^/.*\{ticket\}")


class Options(_Table):
    """Of a generic account."""

    mapping: Mapped
    kind: Kind = "ticket"
    own_actor: str = ""
    html: bool = False
    tolerance_s: float = TOLERANCE_S
    signature: Signature | None = None
    tags: TagsRoute | None = None


def options_of(account: Account) -> Options:
    """The account's options.

    Raises:
        SettingsError: Names those that are wrong.
    """
    try:
        return Options.model_validate(account.options)
    except ValidationError as e:
        raise SettingsError(
            [
                f"{account.name}.options.{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in e.errors(include_input=False)
            ]
        ) from None


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no secret, or its options are wrong.
    """
    require_secrets(account)
    options = options_of(account)
    within_s = tolerance_s(account, TOLERANCE_S)
    return Verified(lambda hook: _verify(hook, account, options, within_s), lambda hook: _read(hook, options))


def _verify(hook: Hook, account: Account, options: Options, within_s: float) -> None:
    if options.signature is None:
        scheme, _, token = hook.headers.get(_BEARER, "").partition(" ")
        verify_token(token.strip() if scheme.lower() == "bearer" else "", account.secrets, header=_BEARER)
        return
    given = options.signature.model_dump()
    lowered = {name: given[name].lower() for name in ("header", "timestamp_header", "id_header")}
    verify(hook, Scheme(**{**given, **lowered}), account.secrets, tolerance_s=within_s)


def _read(hook: Hook, options: Options) -> Event:
    payload, where = parsed(hook.body), options.mapping
    if options.own_actor and where.actor and text_at(payload, where.actor) == options.own_actor:
        return Ignored(why="own-echo")
    text = headed(text_at(payload, where.title) if where.title else "", text_at(payload, where.text))
    return Incoming(
        kind=_kind(payload, options),
        ref=required(payload, where.ref)[:256],
        revision=moment_ms(at(payload, where.revision) if where.revision else None, otherwise=hook.received_at),
        text=text_of_html(text) if options.html else text,
        delivery_id=(text_at(payload, where.delivery_id) or None) if where.delivery_id else None,
    )


def _kind(payload: Any, options: Options) -> Kind:
    match text_at(payload, options.mapping.kind) if options.mapping.kind else "":
        case "ticket":
            return "ticket"
        case "comment":
            return "comment"
        case _:
            return options.kind


def outbound(account: Account) -> "Generic":
    """The way to this account's tickets.

    Raises:
        SettingsError: It says nowhere where tags go.
    """
    return Generic(account)


class Generic:
    """Sends what is to be added and removed to one address. A ticket is what its documents' refs begin with."""

    def __init__(self, account: Account) -> None:
        route = options_of(account).tags
        if route is None:
            raise SettingsError([f"{account.name}.options.tags: missing; it says where tags are sent"])
        self._route = route
        token = {"Authorization": f"Bearer {account.token.get_secret_value()}"} if account.token else {}
        self._client = open_client(account.base_url, allow_private=account.allow_private, headers=token)

    def ticket_of(self, ref: str) -> str:
        """What stands before a slash."""
        return ref.partition("/")[0]

    def tag_of(self, label: str) -> str:
        """As it is."""
        return label

    def known_tags(self) -> frozenset[str] | None:
        """Nobody knows."""
        return None

    def tags_of(self, ticket: str) -> frozenset[str]:  # noqa: ARG002  # nobody can be asked
        """Nobody knows."""
        return frozenset()

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Sends ``{"add": […], "remove": []}``."""
        self._send(ticket, {"add": sorted(tags), "remove": []})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Sends ``{"add": [], "remove": […]}``."""
        self._send(ticket, {"add": [], "remove": sorted(tags)})

    def suggest(self, ticket: str, note: str) -> None:
        """Sends ``{"note": "…"}``."""
        self._send(ticket, {"note": note})

    def _send(self, ticket: str, body: Any) -> None:
        if not ticket:
            raise Declined("the document's ref names no ticket")
        call(self._client, self._route.method, self._route.path.replace("{ticket}", quote(ticket, safe="")), json=body)
