"""Jira Cloud: issues and their comments become tickets and comments, labels are tags.

    [jira]
    system = "jira"
    base_url = "https://shop.atlassian.net"
    secrets = ["env:JIRA_HOOK_SECRET"]
    token = "env:JIRA_TOKEN"                         # me@shop.example:APITOKEN
    label_sets = ["software"]
    options = { own_actor = "5b10a2844c20165700ede21g" }   # accountId of the token's owner

Verified against Atlassian's documentation: ``webhookEvent``, ``issue``, ``comment``, ``changelog``, and
``X-Hub-Signature`` with ``sha256=`` over the body. There is no timestamp; what is replayed is recognised by
``X-Atlassian-Webhook-Identifier`` and by its revision. The verbs for labels are those of its documentation; none was
called. Jira Data Center's signature was not looked at. A description is text in version 2 and a tree in version 3 of
the API; both are read. Revision: ``updated`` of the issue or the comment.
"""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import basic, client_of, token_of
from integrations.inbox import Verified, refuse_unknown_options, require_secrets
from integrations.payloads import at, headed, items_at, moment_ms, parsed, required, text_at, text_of_adf
from integrations.signatures import Scheme, verify
from integrations.system import Event, Hook, Ignored, Inbound, Incoming

SCHEME: Final = Scheme(header="x-hub-signature", prefix="sha256=")
_ISSUES: Final = ("jira:issue_created", "jira:issue_updated")
_COMMENTS: Final = ("comment_created", "comment_updated")
_OPTIONS: Final = ("own_actor",)


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no secret, or options that nobody knows.
    """
    require_secrets(account)
    refuse_unknown_options(account, _OPTIONS)
    own = str(account.options.get("own_actor", ""))
    return Verified(lambda hook: verify(hook, SCHEME, account.secrets), lambda hook: _read(hook, own))


def _read(hook: Hook, own_actor: str) -> Event:
    payload = parsed(hook.body)
    event = text_at(payload, "webhookEvent")
    if event not in (*_ISSUES, *_COMMENTS):
        return Ignored(why="other-event")
    actor = "comment.updateAuthor" if event in _COMMENTS and at(payload, "comment.updateAuthor") else "comment.author"
    actor = actor if event in _COMMENTS else "user"
    if own_actor and text_at(payload, f"{actor}.accountId") == own_actor:
        return Ignored(why="own-echo")
    if text_at(payload, f"{actor}.accountType") == "app":
        return Ignored(why="bot")
    return _ticket(hook, payload, event) if event in _ISSUES else _comment(hook, payload)


def _ticket(hook: Hook, payload: Any, event: str) -> Event:
    changed = {text_at(item, "field") for item in items_at(payload, "changelog.items")}
    if event == "jira:issue_updated" and not changed & {"summary", "description"}:
        return Ignored(why="no-new-text")
    return Incoming(
        kind="ticket",
        ref=required(payload, "issue.key"),
        revision=moment_ms(at(payload, "issue.fields.updated") or at(payload, "timestamp"), otherwise=hook.received_at),
        text=headed(text_at(payload, "issue.fields.summary"), text_of_adf(at(payload, "issue.fields.description"))),
        delivery_id=hook.headers.get("x-atlassian-webhook-identifier"),
    )


def _comment(hook: Hook, payload: Any) -> Event:
    if at(payload, "comment.jsdPublic") is False:
        return Ignored(why="internal")
    return Incoming(
        kind="comment",
        ref=f"{required(payload, 'issue.key')}/{required(payload, 'comment.id')}",
        revision=moment_ms(at(payload, "comment.updated") or at(payload, "timestamp"), otherwise=hook.received_at),
        text=headed("", text_of_adf(at(payload, "comment.body"))),
        delivery_id=hook.headers.get("x-atlassian-webhook-identifier"),
    )


def outbound(account: Account) -> "Jira":
    """The way to this account's issues.

    Raises:
        SettingsError: It has no token, or no base URL.
    """
    return Jira(account)


class Jira:
    """Labels of issues. A ticket is an issue's key."""

    def __init__(self, account: Account) -> None:
        self._client = client_of(account, {"Authorization": basic(token_of(account))})

    def ticket_of(self, ref: str) -> str:
        """The issue."""
        return ref.partition("/")[0]

    def tag_of(self, label: str) -> str:
        """No spaces."""
        return "-".join(label.split())

    def known_tags(self) -> frozenset[str] | None:
        """The site's labels, up to fifty thousand."""
        names: set[str] = set()
        for start in range(0, 50_000, 1000):
            page = call(self._client, "GET", "/rest/api/3/label", params={"startAt": start, "maxResults": 1000})
            names |= set(map(str, at(page, "values") or []))
            if at(page, "isLast") is not False:
                break
        return frozenset(names)

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The issue's labels."""
        issue = call(self._client, "GET", _path(ticket), params={"fields": "labels"})
        return frozenset(map(str, at(issue, "fields.labels") or []))

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Adds, and keeps what is there."""
        self._update(ticket, "add", tags)

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """Takes these off, and no other."""
        self._update(ticket, "remove", tags)

    def suggest(self, ticket: str, note: str) -> None:
        """An internal comment, which projects of Jira Service Management have."""
        path = f"/rest/servicedeskapi/request/{quote(ticket, safe='')}/comment"
        call(self._client, "POST", path, json={"body": note, "public": False})

    def _update(self, ticket: str, verb: str, tags: Collection[str]) -> None:
        update = {"labels": [{verb: tag} for tag in sorted(tags)]}
        call(self._client, "PUT", _path(ticket), json={"update": update})


def _path(ticket: str) -> str:
    return f"/rest/api/3/issue/{quote(ticket, safe='')}"
