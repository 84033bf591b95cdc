"""GitHub: issues and their comments become tickets and comments, labels are tags.

    [oss]
    system = "github"
    base_url = "https://api.github.com"
    secrets = ["env:GITHUB_HOOK_SECRET"]
    token = "env:GITHUB_TOKEN"                       # Issues: read and write
    label_sets = ["software"]
    options = { repositories = ["owner/repo"], own_actor = "my-bot" }

Verified against GitHub's documentation of webhook events and deliveries: the headers, ``X-Hub-Signature-256`` with its
published test vector, ``action`` and ``changes``; and of rate limits, which are answered with 403 or 429.
Revision: ``updated_at`` of the issue or the comment. A label that does not exist is created by GitHub, so the policy's
``only_existing`` asks for ``options.repositories``. GitHub has no note that customers do not see: nothing is suggested.
"""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import client_of, token_of
from integrations.inbox import Verified, refuse_unknown_options, require_secrets
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at
from integrations.signatures import HUB, verify
from integrations.system import Declined, Event, Hook, Ignored, Inbound, Incoming

_TICKETS: Final = {"opened": (), "edited": ("title", "body")}
_COMMENTS: Final = ("created", "edited")
_OPTIONS: Final = ("own_actor", "repositories")


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no secret, or options that nobody knows.
    """
    require_secrets(account)
    refuse_unknown_options(account, _OPTIONS)
    own = str(account.options.get("own_actor", ""))
    return Verified(lambda hook: verify(hook, HUB, account.secrets), lambda hook: _read(hook, own))


def _read(hook: Hook, own_actor: str) -> Event:
    payload, event = parsed(hook.body), hook.headers.get("x-github-event", "")
    if event == "ping":
        return Ignored(why="ping")
    if event not in ("issues", "issue_comment"):
        return Ignored(why="other-event")
    if text_at(payload, "sender.type") == "Bot":
        return Ignored(why="bot")
    if own_actor and text_at(payload, "sender.login") == own_actor:
        return Ignored(why="own-echo")
    if at(payload, "issue.pull_request") is not None:
        return Ignored(why="pull-request")
    return _ticket(hook, payload) if event == "issues" else _comment(hook, payload)


def _ticket(hook: Hook, payload: Any) -> Event:
    action = text_at(payload, "action")
    if action not in _TICKETS:
        return Ignored(why="other-action")
    if action == "edited" and not any(at(payload, f"changes.{name}") for name in _TICKETS["edited"]):
        return Ignored(why="no-new-text")
    return Incoming(
        kind="ticket",
        ref=_issue(payload),
        revision=moment_ms(at(payload, "issue.updated_at"), otherwise=hook.received_at),
        text=headed(text_at(payload, "issue.title"), text_at(payload, "issue.body")),
        delivery_id=hook.headers.get("x-github-delivery"),
    )


def _comment(hook: Hook, payload: Any) -> Event:
    if text_at(payload, "action") not in _COMMENTS:
        return Ignored(why="other-action")
    return Incoming(
        kind="comment",
        ref=f"{_issue(payload)}/{required(payload, 'comment.id')}",
        revision=moment_ms(at(payload, "comment.updated_at"), otherwise=hook.received_at),
        text=headed("", text_at(payload, "comment.body")),
        delivery_id=hook.headers.get("x-github-delivery"),
    )


def _issue(payload: Any) -> str:
    return f"{required(payload, 'repository.full_name')}#{required(payload, 'issue.number')}"


def outbound(account: Account) -> "GitHub":
    """The way to this account's issues.

    Raises:
        SettingsError: It has no token, or no base URL.
    """
    return GitHub(account)


class GitHub:
    """Labels of issues. A ticket is ``owner/repo#number``."""

    def __init__(self, account: Account) -> None:
        self._repositories = [str(name) for name in account.options.get("repositories", [])]
        self._client = client_of(
            account,
            {
                "Authorization": f"Bearer {token_of(account)}",
                "Accept": "application/vnd.github+json",
            },
        )

    def ticket_of(self, ref: str) -> str:
        """The issue."""
        repository, _, rest = ref.rpartition("#")
        return f"{repository}#{rest.partition('/')[0]}"

    def tag_of(self, label: str) -> str:
        """Labels are free text of up to 50 characters."""
        return label[:50]

    def known_tags(self) -> frozenset[str] | None:
        """The labels that every one of ``options.repositories`` has."""
        if not self._repositories:
            return None
        return frozenset.intersection(*map(self._labels_of, self._repositories))

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The issue's labels."""
        issue = call(self._client, "GET", _path(ticket))
        return frozenset(text_at(label, "name") for label in at(issue, "labels") or [])

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """GitHub adds, and keeps what is there."""
        call(self._client, "POST", f"{_path(ticket)}/labels", json={"labels": sorted(tags)})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """One call a label; one that is gone already is fine."""
        for tag in sorted(tags):
            try:
                call(self._client, "DELETE", f"{_path(ticket)}/labels/{quote(tag, safe='')}")
            except Declined as e:
                if not str(e).endswith("404"):
                    raise

    def suggest(self, ticket: str, note: str) -> None:  # noqa: ARG002  # there is nowhere to put it
        """Not possible."""
        raise Declined('GitHub has no note that customers do not see; use mode = "apply"')

    def _labels_of(self, repository: str) -> frozenset[str]:
        names: set[str] = set()
        for page in range(1, 51):
            labels = (
                call(self._client, "GET", f"/repos/{repository}/labels", params={"per_page": 100, "page": page}) or []
            )
            names |= {text_at(label, "name") for label in labels}
            if len(labels) < 100:
                break
        return frozenset(names)


def _path(ticket: str) -> str:
    repository, _, number = ticket.rpartition("#")
    return f"/repos/{quote(repository, safe='/')}/issues/{quote(number, safe='')}"
