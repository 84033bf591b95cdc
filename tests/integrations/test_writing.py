"""Tags are added, and those that were there before stay; what a status means is the same for every system."""

import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import httpx
import pytest

from integrations.accounts import Account
from integrations.calls import call
from integrations.system import Busy, Declined, Outbound, Unavailable
from tagging.errors import SettingsError

Calls = list[tuple[str, str, Any]]

OPTIONS: dict[str, dict[str, Any]] = {
    "github": {"repositories": ["owner/repo"]},
    "gitlab": {"projects": ["group/project"]},
    "chatwoot": {"account_id": "1"},
    "feishu": {"app_id": "cli", "helpdesk_id": "h"},
    "generic": {"mapping": {"ref": "id", "text": "text"}, "tags": {"path": "/t/{ticket}/tags"}},
}
ANSWERS: dict[tuple[str, str], Any] = {
    ("GET", "/repos/owner/repo/issues/12"): {"labels": [{"name": "bug"}]},
    ("GET", "/repos/owner/repo/labels"): [{"name": "bug"}, {"name": "退款"}],
    ("GET", "/projects/group%2Fproject/issues/23"): {"labels": ["bug"]},
    ("GET", "/projects/group%2Fproject/labels"): [{"name": "bug"}, {"name": "退款"}],
    ("GET", "/api/v2/tickets/5158/tags.json"): {"tags": ["bug"]},
    ("GET", "/api/v2/tags.json"): {"tags": [{"name": "bug"}, {"name": "退款"}]},
    ("GET", "/api/v1/accounts/1/conversations/8/labels"): {"payload": ["bug"]},
    ("GET", "/api/v1/accounts/1/labels"): {"payload": [{"title": "bug"}, {"title": "退款"}]},
    ("GET", "/api/v1/tags"): {"tags": ["bug"]},
    ("GET", "/api/v1/tag_list"): [{"id": 1, "name": "bug"}, {"id": 2, "name": "退款"}],
    ("GET", "/rest/api/3/issue/OPS-7"): {"fields": {"labels": ["bug"]}},
    ("GET", "/rest/api/3/label"): {"values": ["bug", "退款"], "isLast": True},
    ("POST", "/open-apis/auth/v3/tenant_access_token/internal"): {"tenant_access_token": "t", "expire": 7200},
    ("GET", "/open-apis/helpdesk/v1/tickets/66"): {"code": 0, "data": {"ticket": {"tags": [{"name": "bug"}]}}},
    ("PUT", "/open-apis/helpdesk/v1/tickets/66"): {"code": 0},
}
REFS = {
    "github": ("owner/repo#12/345", "owner/repo#12"),
    "gitlab": ("group/project#23/7", "group/project#23"),
    "zendesk": ("5158/6", "5158"),
    "chatwoot": ("8/31", "8"),
    "zammad": ("81/109", "81"),
    "jira": ("OPS-7/8", "OPS-7"),
    "feishu": ("66/m-9", "66"),
    "generic": ("5/c", "5"),
}
ADDED: dict[str, Calls] = {
    "github": [("POST", "/repos/owner/repo/issues/12/labels", {"labels": ["退款"]})],
    "gitlab": [("PUT", "/projects/group%2Fproject/issues/23", {"add_labels": "退款"})],
    "zendesk": [("PUT", "/api/v2/tickets/5158/tags.json", {"tags": ["退款"]})],
    "chatwoot": [("POST", "/api/v1/accounts/1/conversations/8/labels", {"labels": ["bug", "退款"]})],
    "zammad": [("POST", "/api/v1/tags/add", {"item": "退款", "object": "Ticket", "o_id": "81"})],
    "jira": [("PUT", "/rest/api/3/issue/OPS-7", {"update": {"labels": [{"add": "退款"}]}})],
    "feishu": [("PUT", "/open-apis/helpdesk/v1/tickets/66", {"tag_names": ["bug", "退款"]})],
    "generic": [("POST", "/t/5/tags", {"add": ["退款"], "remove": []})],
}
REMOVED: dict[str, Calls] = {
    "github": [("DELETE", "/repos/owner/repo/issues/12/labels/bug", None)],
    "gitlab": [("PUT", "/projects/group%2Fproject/issues/23", {"remove_labels": "bug"})],
    "zendesk": [("DELETE", "/api/v2/tickets/5158/tags.json", {"tags": ["bug"]})],
    "chatwoot": [("POST", "/api/v1/accounts/1/conversations/8/labels", {"labels": []})],
    "zammad": [("DELETE", "/api/v1/tags/remove", {"item": "bug", "object": "Ticket", "o_id": "81"})],
    "jira": [("PUT", "/rest/api/3/issue/OPS-7", {"update": {"labels": [{"remove": "bug"}]}})],
    "feishu": [("PUT", "/open-apis/helpdesk/v1/tickets/66", {"tag_names": []})],
    "generic": [("POST", "/t/5/tags", {"add": [], "remove": ["bug"]})],
}
every_system = pytest.mark.parametrize("system", sorted(REFS))


class Vendor:
    """A system that answers what is in the table, and notes what is asked."""

    def __init__(self) -> None:
        self.changes: Calls = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        if request.method != "GET" and "auth" not in path:
            self.changes.append((request.method, path, json.loads(request.content) if request.content else None))
        return httpx.Response(200, json=ANSWERS.get((request.method, path), {}))


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, vendor: Vendor) -> Callable[[str], Outbound]:
    """The way to a system that the vendor answers for."""

    def connect_(system: str) -> Outbound:
        module = import_module(f"integrations.{system}")

        def client_of(account: Account, headers: dict[str, str]) -> httpx.Client:
            return httpx.Client(base_url=account.base_url, headers=headers, transport=httpx.MockTransport(vendor))

        monkeypatch.setattr(module, "client_of", client_of)
        opened: Outbound = module.outbound(account(system))
        return opened

    return connect_


def account(system: str, **fields: Any) -> Account:
    table = {
        "name": "desk",
        "system": system,
        "base_url": "https://desk.example",
        "token": "env:TOKEN",
        "label_sets": ["intent"],
        "options": OPTIONS.get(system, {}),
        **fields,
    }
    return Account.model_validate(table, context={**os.environ, "TOKEN": "app:desk"})


@every_system
def test_a_comments_tags_go_to_its_ticket(system: str, connect: Callable[[str], Outbound]) -> None:
    ref, ticket = REFS[system]
    assert connect(system).ticket_of(ref) == connect(system).ticket_of(ticket) == ticket


@every_system
def test_adding_keeps_what_the_ticket_carries(system: str, connect: Callable[[str], Outbound], vendor: Vendor) -> None:
    connect(system).add(REFS[system][1], frozenset({"退款"}))
    assert vendor.changes == ADDED[system]


@every_system
def test_removing_takes_off_what_is_named(system: str, connect: Callable[[str], Outbound], vendor: Vendor) -> None:
    connect(system).remove(REFS[system][1], frozenset({"bug"}))
    assert vendor.changes == REMOVED[system]


@pytest.mark.parametrize("system", sorted(set(REFS) - {"generic"}))
def test_a_tickets_tags_are_known(system: str, connect: Callable[[str], Outbound]) -> None:
    assert connect(system).tags_of(REFS[system][1]) == {"bug"}


@pytest.mark.parametrize("system", sorted(set(REFS) - {"generic", "feishu"}))
def test_the_tags_that_exist_are_known(system: str, connect: Callable[[str], Outbound]) -> None:
    assert connect(system).known_tags() == {"bug", "退款"}


@pytest.mark.parametrize("system", sorted(set(REFS) - {"github", "feishu"}))
def test_a_suggestion_is_seen_by_agents_only(system: str, connect: Callable[[str], Outbound], vendor: Vendor) -> None:
    connect(system).suggest(REFS[system][1], "退款？")
    [(_, _, body)] = vendor.changes
    assert "退款？" in json.dumps(body, ensure_ascii=False)
    assert system == "generic" or any(
        word in json.dumps(body) for word in ('internal": true', 'private": true', 'public": false')
    )


@pytest.mark.parametrize("system", ["github", "feishu"])
def test_where_customers_would_see_it_nothing_is_suggested(
    system: str, connect: Callable[[str], Outbound], vendor: Vendor
) -> None:
    with pytest.raises(Declined, match="customers"):
        connect(system).suggest(REFS[system][1], "退款？")
    assert not vendor.changes


@pytest.mark.parametrize("system", sorted(set(REFS) - {"generic"}))
def test_without_a_token_no_tags_are_written(system: str) -> None:
    with pytest.raises(SettingsError, match="token"):
        import_module(f"integrations.{system}").outbound(account(system, token=None))


@pytest.mark.parametrize(
    ("status", "headers", "error", "after_s"),
    [
        (429, {"Retry-After": "7"}, Busy, 7.0),
        (503, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, Busy, 0.0),
        (429, {}, Busy, None),
        (500, {}, Unavailable, None),
        (429, {"Retry-After": "9" * 400}, Busy, 86_400.0),
        (403, {"Retry-After": "7"}, Busy, 7.0),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, Busy, 0.0),
        (403, {"X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": "1"}, Declined, None),
        (401, {}, Declined, None),
        (404, {}, Declined, None),
        (302, {"Location": "http://169.254.169.254/"}, Declined, None),
    ],
)
def test_a_status_says_whether_to_come_back(
    status: int, headers: dict[str, str], error: type[Exception], after_s: float | None
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers))
    with httpx.Client(base_url="https://desk.example", transport=transport) as client, pytest.raises(error) as failed:
        call(client, "GET", "/tickets/4711")
    assert getattr(failed.value, "after_s", None) == after_s
    assert "4711" not in str(failed.value)


def test_githubs_secondary_limit_is_told_from_a_missing_right_by_its_words() -> None:
    said = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
    transport = httpx.MockTransport(lambda _: httpx.Response(403, json=said))
    with httpx.Client(base_url="https://desk.example", transport=transport) as client, pytest.raises(Busy) as busy:
        call(client, "POST", "/labels")
    assert busy.value.after_s is None


def test_a_system_that_does_not_answer_is_unavailable() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("slow", request=request)

    with (
        httpx.Client(base_url="https://desk.example", transport=httpx.MockTransport(fail)) as client,
        pytest.raises(Unavailable),
    ):
        call(client, "GET", "/")
