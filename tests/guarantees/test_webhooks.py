"""A webhook gets in only if its system has signed it, and once however often it is sent.

Every system's signatures, replayed and forged: ``tests/integrations/test_verifying.py``.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.system import Hook
from tagging.errors import SettingsError
from tests.children import ROOT
from tests.http.fixtures import Api
from tests.integrations.senders import FEISHU, GENERIC, GITHUB, TEXT, Sender, now
from tests.integrations.test_reading import GENUINE, mutated

ACCOUNTS = """
[oss]
system = "github"
secrets = ["file:{secret}"]
label_sets = ["intent", "sentiment"]
options = {{ own_actor = "tagmill" }}
[oss.write_back.intent]
mode = "apply"

[inhouse]
system = "generic"
secrets = ["file:{secret}"]
label_sets = ["intent"]
options.mapping = {{ ref = "id", text = "text", revision = "modified", delivery_id = "delivery" }}

[helpdesk]
system = "feishu"
secrets = ["file:{secret}"]
label_sets = ["intent"]
kinds = ["comment"]
"""


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """The project's own configuration, with accounts."""
    folder = tmp_path / "config"
    shutil.copytree(ROOT / "config", folder)
    (tmp_path / "secret").write_text("s3cret", encoding="utf-8")
    (folder / "accounts.toml").write_text(ACCOUNTS.format(secret=tmp_path / "secret"), encoding="utf-8")
    return folder


@pytest.fixture
def api(open_api: Callable[..., Api], config_dir: Path) -> Api:
    api = open_api(config_dir=config_dir)
    api.queue.worker = False
    return api


def post(api: Api, path: str, hook: Hook) -> tuple[int, dict[str, object]]:
    response = api.client.post(path, content=hook.body, headers={**hook.headers, "Authorization": ""})
    return response.status_code, response.json()


def test_a_ticket_is_asked_about_once_for_each_label_set(api: Api) -> None:
    status, answer = post(api, "/hooks/github/oss", GITHUB.hook())
    assert status == 202
    [first, second] = [api.message(id_) for id_ in answer["tasks"]]
    assert {first["label_set"], second["label_set"]} == {"intent", "sentiment"}
    assert (first["source"], first["ref"]) == ("oss", "owner/repo#12")
    assert TEXT in first["text"]
    assert [message.get("write_back") for message in (first, second)] == [{"system": "oss", "mode": "apply"}, None]


def test_what_is_delivered_again_or_replayed_is_nothing_new(api: Api) -> None:
    hook = GITHUB.hook()
    _, first = post(api, "/hooks/github/oss", hook)
    _, again = post(api, "/hooks/github/oss", hook)
    _, replayed = post(api, "/hooks/github/oss", replace(hook, headers={**hook.headers, "x-github-delivery": "d-2"}))
    assert first["tasks"] == again["tasks"] == replayed["tasks"]
    assert len(api.queue.taken) == 2
    print(f"FIGURE webhook_replays n=2 replay_effects={len(api.queue.taken) - 2}")


def test_what_comes_under_the_same_delivery_id_is_nothing_new_though_its_revision_differs(api: Api) -> None:
    def tasks(delivery: str, modified: int) -> object:
        sent = {"id": 5, "delivery": delivery, "modified": modified, "text": TEXT}
        response = api.client.post("/hooks/generic/inhouse", json=sent, headers={"Authorization": "Bearer s3cret"})
        assert response.status_code == 202
        return response.json()["tasks"]

    first = tasks("g-1", 1_795_600_000)
    assert tasks("g-1", 1_795_600_001) == first
    assert tasks("g-2", 1_795_600_001) != first


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a" * 500], ids=["NUL", "line end", "long"])
def test_a_reference_that_no_message_may_have_is_refused(api: Api, name: str) -> None:
    status, problem = post(api, "/hooks/github/oss", GITHUB.hook({**GITHUB.ticket, "repository": {"full_name": name}}))
    assert (status, problem["type"]) == (422, "urn:tagmill:problem:invalid-message")
    assert not api.queue.taken


def test_our_own_echo_asks_nothing(api: Api) -> None:
    echo = {**GITHUB.ticket, "action": "labeled", "sender": {"login": "tagmill", "type": "User"}}
    assert post(api, "/hooks/github/oss", GITHUB.hook(echo)) == (200, {"ignored": "own-echo"})
    assert not api.queue.taken


@pytest.mark.parametrize("path", ["/hooks/github/nobody", "/hooks/gitlab/oss", "/hooks/nothing/oss"])
def test_there_is_no_such_account(api: Api, path: str) -> None:
    assert post(api, path, GITHUB.hook())[0] == 404


def test_a_stranger_is_refused_without_a_word_about_why(api: Api) -> None:
    status, problem = post(api, "/hooks/github/oss", GITHUB.hook(secret="guess"))
    assert (status, problem["type"]) == (401, "urn:tagmill:problem:unauthorized")
    assert "secret" not in str(problem)
    assert not api.queue.taken


def test_a_genuine_body_that_cannot_be_read_is_said_to_be_so(api: Api) -> None:
    status, problem = post(api, "/hooks/github/oss", GITHUB.hook({**GITHUB.ticket, "repository": {}}))
    assert (status, problem["detail"]) == (422, "repository.full_name is missing")


def test_an_empty_text_asks_nothing(api: Api) -> None:
    empty = {**GITHUB.ticket, "issue": {**GITHUB.ticket["issue"], "title": " ", "body": None}}
    assert post(api, "/hooks/github/oss", GITHUB.hook(empty)) == (200, {"ignored": "empty"})


def test_feishus_challenge_is_answered(api: Api) -> None:
    challenge = FEISHU.hook({"type": "url_verification", "challenge": "c-1"}, at=now())
    assert post(api, "/hooks/feishu/helpdesk", challenge) == (200, {"challenge": "c-1"})


def test_no_genuine_payload_however_odd_is_answered_5xx(api: Api) -> None:
    doors = {"github": "/hooks/github/oss", "feishu": "/hooks/feishu/helpdesk"}
    answered: Counter[int] = Counter()

    @settings(max_examples=150, deadline=None)
    @given(data=st.data(), genuine=st.sampled_from([g for g in GENUINE if g[0].system in doors]))
    def posted(data: st.DataObject, genuine: tuple[Sender, dict[str, Any], dict[str, str]]) -> None:
        sender, payload, headers = genuine
        hook = sender.hook(mutated(data.draw, payload), at=now(), **headers)
        answered[api.client.post(doors[sender.system], content=hook.body, headers=hook.headers).status_code] += 1

    posted()
    print(f"FIGURE webhook_oddities n={answered.total()} answered={dict(sorted(answered.items()))}")
    assert set(answered) <= {200, 202, 401, 422}


def test_feishus_challenge_is_answered_only_if_it_can_be_said(api: Api) -> None:
    challenge = FEISHU.hook({"type": "url_verification", "challenge": "\ud800"}, at=now())
    assert post(api, "/hooks/feishu/helpdesk", challenge)[0] == 422


def test_webhooks_are_counted_by_system_and_outcome(api: Api) -> None:
    post(api, "/hooks/github/oss", GITHUB.hook())
    post(api, "/hooks/github/oss", GITHUB.hook(secret="guess"))
    page = api.client.get("/metrics").text
    assert 'tagmill_webhooks_total{outcome="accepted",system="github"} 1.0' in page
    assert 'tagmill_webhooks_total{outcome="refused-wrong",system="github"} 1.0' in page


def test_an_account_that_could_be_forged_keeps_the_api_from_starting(
    open_api: Callable[..., Api], config_dir: Path
) -> None:
    with (config_dir / "accounts.toml").open("a", encoding="utf-8") as accounts:
        accounts.write('[open]\nsystem = "github"\nlabel_sets = ["intent"]\n')
        accounts.write('[odd]\nsystem = "no_such"\nlabel_sets = ["intent"]\n')
    with pytest.raises(SettingsError) as refused:
        open_api(config_dir=config_dir)
    assert [problem.partition(": ")[2] for problem in refused.value.problems] == [
        "open.secrets: missing; without one anybody could send us tickets",
        "odd.system: there is no ticketing system 'no_such'",
    ]


def test_a_mapping_of_ones_own_is_checked_at_the_start(open_api: Callable[..., Api], config_dir: Path) -> None:
    assert GENERIC.options is not None
    with (config_dir / "accounts.toml").open("a", encoding="utf-8") as accounts:
        accounts.write(f'[own]\nsystem = "generic"\nsecrets = ["file:{config_dir.parent}/secret"]\n')
        accounts.write('label_sets = ["intent"]\noptions = { colour = "red" }\n')
    with pytest.raises(SettingsError, match=r"own\.options\.mapping: missing"):
        open_api(config_dir=config_dir)
