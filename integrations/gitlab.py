"""GitLab: issues and their notes become tickets and comments, labels are tags.

    [forge]
    system = "gitlab"
    base_url = "https://gitlab.example/api/v4"
    secrets = ["env:GITLAB_HOOK_SECRET"]
    token = "env:GITLAB_TOKEN"                       # scope api
    label_sets = ["software"]
    options = { projects = ["group/project"], own_actor = "my-bot" }

Verified against GitLab's documentation of webhook events: ``object_kind``, ``object_attributes``, ``changes``, and
that ``action`` is missing in its own test request. Two ways to sign are taken: the secret itself in
``X-Gitlab-Token``, and the newer signature after Standard Webhooks, which is preferred where its header is there.
Not verified: the exact release from which it is sent. Revision: ``object_attributes.updated_at``. Suggestions are
internal notes.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from integrations.accounts import Account
from integrations.calls import call
from integrations.credentials import client_of, token_of
from integrations.inbox import Verified, refuse_unknown_options, require_secrets, tolerance_s
from integrations.payloads import at, headed, moment_ms, parsed, required, text_at
from integrations.signatures import STANDARD_WEBHOOKS, TOLERANCE_S, verify, verify_token
from integrations.system import Event, Hook, Ignored, Inbound, Incoming

_OPTIONS: Final = ("own_actor", "projects", "tolerance_s")


def inbound(account: Account) -> Inbound:
    """How this account's webhooks are taken.

    Raises:
        SettingsError: It has no secret, or options that nobody knows.
    """
    require_secrets(account)
    refuse_unknown_options(account, _OPTIONS)
    own, within_s = str(account.options.get("own_actor", "")), tolerance_s(account, TOLERANCE_S)
    return Verified(lambda hook: _verify(hook, account.secrets, within_s), lambda hook: _read(hook, own))


def _verify(hook: Hook, secrets: Sequence[SecretStr], within_s: float) -> None:
    if STANDARD_WEBHOOKS.header in hook.headers:
        verify(hook, STANDARD_WEBHOOKS, secrets, tolerance_s=within_s)
    else:
        verify_token(hook.headers.get("x-gitlab-token", ""), secrets, header="x-gitlab-token")


def _read(hook: Hook, own_actor: str) -> Event:
    payload = parsed(hook.body)
    kind, user = text_at(payload, "object_kind"), text_at(payload, "user.username")
    if kind not in ("issue", "note"):
        return Ignored(why="other-event")
    if own_actor and user == own_actor:
        return Ignored(why="own-echo")
    if user.startswith(("project_", "group_")) and "_bot" in user:
        return Ignored(why="bot")
    return _ticket(hook, payload) if kind == "issue" else _comment(hook, payload)


def _ticket(hook: Hook, payload: Any) -> Event:
    action = text_at(payload, "object_attributes.action")
    if not action:
        return Ignored(why="test")
    if action not in ("open", "update"):
        return Ignored(why="other-action")
    if action == "update" and not (at(payload, "changes.title") or at(payload, "changes.description")):
        return Ignored(why="no-new-text")
    return Incoming(
        kind="ticket",
        ref=f"{required(payload, 'project.path_with_namespace')}#{required(payload, 'object_attributes.iid')}",
        revision=moment_ms(at(payload, "object_attributes.updated_at"), otherwise=hook.received_at),
        text=headed(text_at(payload, "object_attributes.title"), text_at(payload, "object_attributes.description")),
        delivery_id=_delivery(hook),
    )


def _comment(hook: Hook, payload: Any) -> Event:
    if text_at(payload, "object_attributes.noteable_type") != "Issue":
        return Ignored(why="other-event")
    if at(payload, "object_attributes.system") is True:
        return Ignored(why="bot")
    if at(payload, "object_attributes.internal") is True:
        return Ignored(why="internal")
    issue = f"{required(payload, 'project.path_with_namespace')}#{required(payload, 'issue.iid')}"
    return Incoming(
        kind="comment",
        ref=f"{issue}/{required(payload, 'object_attributes.id')}",
        revision=moment_ms(at(payload, "object_attributes.updated_at"), otherwise=hook.received_at),
        text=headed("", text_at(payload, "object_attributes.note")),
        delivery_id=_delivery(hook),
    )


def _delivery(hook: Hook) -> str | None:
    names = ("webhook-id", "idempotency-key")  # X-Gitlab-Event-UUID is shared by what one event sets off
    return next((hook.headers[name] for name in names if hook.headers.get(name)), None)


def outbound(account: Account) -> "GitLab":
    """The way to this account's issues.

    Raises:
        SettingsError: It has no token, or no base URL.
    """
    return GitLab(account)


class GitLab:
    """Labels of issues. A ticket is ``group/project#iid``."""

    def __init__(self, account: Account) -> None:
        self._projects = [str(name) for name in account.options.get("projects", [])]
        self._client = client_of(account, {"PRIVATE-TOKEN": token_of(account)})

    def ticket_of(self, ref: str) -> str:
        """The issue."""
        project, _, rest = ref.rpartition("#")
        return f"{project}#{rest.partition('/')[0]}"

    def tag_of(self, label: str) -> str:
        """Labels are free text without commas, which separate them."""
        return label.replace(",", " ")[:255]

    def known_tags(self) -> frozenset[str] | None:
        """The labels that every one of ``options.projects`` has."""
        if not self._projects:
            return None
        return frozenset.intersection(*map(self._labels_of, self._projects))

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The issue's labels."""
        return frozenset(str(label) for label in at(call(self._client, "GET", _path(ticket)), "labels") or [])

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """GitLab adds, and keeps what is there."""
        call(self._client, "PUT", _path(ticket), json={"add_labels": ",".join(sorted(tags))})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """GitLab takes these off, and no other."""
        call(self._client, "PUT", _path(ticket), json={"remove_labels": ",".join(sorted(tags))})

    def suggest(self, ticket: str, note: str) -> None:
        """An internal note."""
        call(self._client, "POST", f"{_path(ticket)}/notes", json={"body": note, "internal": True})

    def _labels_of(self, project: str) -> frozenset[str]:
        names: set[str] = set()
        for page in range(1, 51):
            path, params = f"/projects/{quote(project, safe='')}/labels", {"per_page": 100, "page": page}
            labels = call(self._client, "GET", path, params=params) or []
            names |= {text_at(label, "name") for label in labels}
            if len(labels) < 100:
                break
        return frozenset(names)


def _path(ticket: str) -> str:
    project, _, iid = ticket.rpartition("#")
    return f"/projects/{quote(project, safe='')}/issues/{quote(iid, safe='')}"
