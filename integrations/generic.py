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
    events = ["ticket.created", "ticket.updated"]    # others are ignored; none: all are read
    [inhouse.options.mapping]                        # paths such as ticket.articles[0].body
    ref = "ticket.id"
    title = "ticket.title"
    text = "ticket.description"
    revision = "ticket.modified"
    delivery_id = "delivery"
    actor = "user.login"
    event = "event"
    [inhouse.options.signature]                      # none: the secret itself, as bearer token or Basic password
    header = "x-signature"
    algorithm = "sha256"                             # sha1, sha256, sha512
    encoding = "hex"                                 # hex, base64
    prefix = "sha256="
    signed = "ts.body"                               # body, ts+body, ts.body, id.ts.body
    timestamp_header = "x-timestamp"
    [inhouse.options.tags]                           # where tags are sent; none: nothing is written back
    method = "POST"
    path = "/tickets/{ticket}/tags"
    field = ""                                       # a text field that holds all tags, read and written whole
    [inhouse.options.note]                           # where suggestions go; none: to the same path
    path = "/notes"
    body = { ticket = "{ticket}", text = "{note}", public = false }

Tags are sent as ``{"add": […], "remove": […]}``, or with ``field`` as that field's new value; suggestions as
``{"note": "…"}``, or as ``note.body`` says. ``options.auth = "basic"`` makes ``token`` a user, a colon and a
password. A ``ref`` with a slash belongs to the ticket before the slash. Without ``revision`` the time of arrival
counts, so that the last one to arrive stands.
"""

import base64
import re
from collections.abc import Collection
from typing import Any, Final, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import basic, client_of, token_of
from integrations.inbox import Verified, require_secrets, tolerance_s
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at, text_of_html
from integrations.signatures import TOLERANCE_S, Algorithm, Encoding, Scheme, Signed, verify, verify_token
from integrations.system import Declined, Event, Hook, Ignored, Inbound, Incoming
from tagging.errors import SettingsError
from tagging.mistakes import expected
from tagging.names import Kind

_BEARER: Final = "authorization"
_PLACES: Final = re.compile(r"(\{ticket\}|\{note\})")


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
    event: str = ""


class Signature(_Table):
    """How it signs."""

    header: str
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    signed: Signed = "body"
    timestamp_header: str = ""
    id_header: str = ""

    @model_validator(mode="after")
    def _signs_what_it_names(self) -> Self:
        """A timestamp that is not signed protects from no replay, and one that is signed has to be found."""
        if ("ts" in self.signed) != bool(self.timestamp_header):
            raise ValueError("timestamp_header goes with a signed that holds ts, and only with such a one")
        if ("id" in self.signed) != bool(self.id_header):
            raise ValueError("id_header goes with a signed that holds id, and only with such a one")
        return self


class TagsRoute(_Table):
    """Where tags are sent."""

    method: Literal["POST", "PUT", "PATCH"] = "POST"
    path: str = Field(pattern=r"^/.*\{ticket\}")
    field: str = ""
    """A text field of the ticket that holds all of its tags; it is read from the same path first."""
    separator: str = ", "


class NoteRoute(_Table):
    """Where suggestions are sent."""

    method: Literal["POST", "PUT", "PATCH"] = "POST"
    path: str = Field(pattern=r"^/")
    body: dict[str, Any]
    """``{ticket}`` and ``{note}`` in its texts are filled in."""


class Options(_Table):
    """Of a generic account."""

    mapping: Mapped
    kind: Kind = "ticket"
    own_actor: str = ""
    events: tuple[str, ...] = ()
    """What ``mapping.event`` may be; everything else is ignored."""
    html: bool = False
    tolerance_s: float = TOLERANCE_S
    signature: Signature | None = None
    tags: TagsRoute | None = None
    note: NoteRoute | None = None
    auth: Literal["bearer", "basic"] = "bearer"

    @model_validator(mode="after")
    def _finds_what_it_filters_by(self) -> Self:
        """Without a path nothing would ever be filtered, and our own tags would come back as news."""
        if self.own_actor and not self.mapping.actor:
            raise ValueError("own_actor needs mapping.actor, the path to who did it")
        if bool(self.events) != bool(self.mapping.event):
            raise ValueError("events and mapping.event go together")
        return self


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
                f"{account.name}.options.{'.'.join(map(str, problem['loc']))}: {expected(problem, of=Options)}"
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
        verify_token(_token(hook.headers.get(_BEARER, "")), account.secrets, header=_BEARER)
        return
    given = options.signature.model_dump()
    lowered = {name: given[name].lower() for name in ("header", "timestamp_header", "id_header")}
    verify(hook, Scheme(**{**given, **lowered}), account.secrets, tolerance_s=within_s)


def _token(authorization: str) -> str:
    """A bearer token, or the password of Basic authentication, for systems that can only put one into a URL."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            try:
                return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
            except ValueError:
                return ""
        case _:
            return ""


def _read(hook: Hook, options: Options) -> Event:
    payload, where = parsed(hook.body), options.mapping
    if options.own_actor and where.actor and text_at(payload, where.actor) == options.own_actor:
        return Ignored(why="own-echo")
    if options.events and text_at(payload, where.event) not in options.events:
        return Ignored(why="other-event")
    text = headed(text_at(payload, where.title) if where.title else "", text_at(payload, where.text))
    return Incoming(
        kind=_kind(payload, options),
        ref=required(payload, where.ref),
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
        options = options_of(account)
        if options.tags is None:
            raise SettingsError([f"{account.name}.options.tags: missing; it says where tags are sent"])
        self._route = options.tags
        self._note = options.note
        headers = {"Authorization": _authorization(account, options)} if account.token else {}
        self._client = client_of(account, headers)

    def ticket_of(self, ref: str) -> str:
        """What stands before a slash."""
        return ref.partition("/")[0]

    def tag_of(self, label: str) -> str:
        """As it is."""
        return label

    def known_tags(self) -> frozenset[str] | None:
        """Nobody knows."""
        return None

    def tags_of(self, ticket: str) -> frozenset[str]:
        """Those in the ticket's field; without one nobody can be asked."""
        if not self._route.field:
            return frozenset()
        value = text_at(call(self._client, "GET", _filled(self._route.path, ticket)), self._route.field)
        return frozenset(tag.strip() for tag in value.split(self._route.separator.strip()) if tag.strip())

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Sends ``{"add": […], "remove": []}``, or the field with these too."""
        if self._route.field:
            self._write(ticket, self.tags_of(ticket) | set(tags))
        else:
            self._send(ticket, {"add": sorted(tags), "remove": []})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Sends ``{"add": [], "remove": […]}``, or the field without these."""
        if self._route.field:
            self._write(ticket, self.tags_of(ticket) - set(tags))
        else:
            self._send(ticket, {"add": [], "remove": sorted(tags)})

    def suggest(self, ticket: str, note: str) -> None:
        """Sends what ``note`` says, or ``{"note": "…"}``."""
        if self._note is None:
            self._send(ticket, {"note": note})
            return
        body = {name: _with(value, ticket, note) for name, value in self._note.body.items()}
        call(self._client, self._note.method, _filled(self._note.path, ticket), json=body)

    def _write(self, ticket: str, tags: Collection[str]) -> None:
        self._send(ticket, {self._route.field: self._route.separator.join(sorted(tags))})

    def _send(self, ticket: str, body: Any) -> None:
        call(self._client, self._route.method, _filled(self._route.path, ticket), json=body)


def _filled(path: str, ticket: str) -> str:
    if not ticket:
        raise Declined("the document's ref names no ticket")
    return path.replace("{ticket}", quote(ticket, safe=""))


def _with(value: Any, ticket: str, note: str) -> Any:
    if not isinstance(value, str):
        return value
    return "".join({"{ticket}": ticket, "{note}": note}.get(part, part) for part in _PLACES.split(value))


def _authorization(account: Account, options: Options) -> str:
    token = token_of(account)
    return f"Bearer {token}" if options.auth == "bearer" else basic(token)
