"""A backfill's tags reach their tickets by way of real processes, and `tagmill backfill undo` takes them off again."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.broker.octo import OctoServer
from tests.broker.sites import ANSWER_S, CANARY, Broker, Site
from tests.children import background
from tests.commands import Ran, Tagmill
from tests.processes import ROOT
from tests.servers import RedisServer, server_folder, wait_until

ACCOUNTS = """
[desk]
system = "github"
base_url = "{url}"
allow_private = true
token = "env:DESK_TOKEN"
label_sets = ["shop"]
max_per_minute = 6000
[desk.write_back.shop]
mode = "apply"
top_k = 1
only_existing = false
thresholds = {{ "退款" = 0.0, "物流" = 0.0 }}
"""


class Desk:
    """An analyst beside a site whose tags go to a server of its own."""

    def __init__(self, site: Site, octo: OctoServer) -> None:
        self.site = site
        self.octo = octo

    def __call__(self, *arguments: str) -> Ran:
        return Tagmill(self.site.folder, self.site.environ)("backfill", *arguments, "--json")

    def labels(self) -> dict[str, int]:
        """How many labels each issue carries."""
        return {issue: len(labels) for issue, labels in list(self.octo.labels.items()) if labels}


@pytest.fixture
def desk(many_databases: RedisServer) -> Iterator[Desk]:
    with ExitStack() as stack:
        octo = stack.enter_context(OctoServer().running())
        folder = stack.enter_context(server_folder("backfill-back"))
        site = stack.enter_context(closing(Broker.on(many_databases, None).site(folder)))
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "config" / "labels" / "shop.toml").write_text('labels = ["退款", "物流"]\n', encoding="utf-8")
        (folder / "config" / "accounts.toml").write_text(ACCOUNTS.format(url=octo.url), encoding="utf-8")
        site.environ |= {
            "TAGMILL_CONFIG_DIR": str(folder / "config"),
            "TAGMILL_BACKFILL__JOBS_DIR": str(folder / "jobs"),
            "TAGMILL_MODEL__NAME": "fake",
        }
        stack.enter_context(site.worker().running())
        yield Desk(site, octo)


def source(folder: Path) -> Path:
    """Tickets of the account and of another system, one with a reference that the account has never heard of."""
    path = folder / "tickets.jsonl"
    rows = [{"id": f"octo/desk#{n}", "text": f"{n} {CANARY}", "source": "desk"} for n in range(1, 4)]
    rows.append({"id": "M-1", "text": "by mail", "source": "mail"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_from_a_file_to_the_tickets_and_off_them_again(desk: Desk) -> None:
    environ = {**desk.site.environ, "DESK_TOKEN": "t0ken"}
    log = desk.site.folder / "log"
    done = desk(str(source(desk.site.folder)), "--label-set", "shop", "--write-back", "--job", "back")
    assert done.code == 0, done.err
    assert done.rows[0]["write_back"]["ordered"] == 3
    relay = background([sys.executable, "-m", "tagmill", "relay"], environ=environ, log=log, cwd=desk.site.folder)
    writer = background(
        [sys.executable, "-m", "tagmill", "writeback", "run"], environ=environ, log=log, cwd=desk.site.folder
    )
    with relay, writer as process:
        wait_until(
            "each of its tickets has a label", lambda: desk.labels() == {"1": 1, "2": 1, "3": 1}, timeout_s=ANSWER_S
        )
        wait_until("the report says so", lambda: desk("status", "back").rows[0]["write_back"]["written"] == 3)
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    assert CANARY not in log.read_text()

    desk.octo.labels["2"].append("by hand")
    refused = desk("undo", "back")
    assert (refused.code, "DESK_TOKEN is not set" in refused.err) == (2, True), refused.err
    undone = Tagmill(desk.site.folder, environ)("backfill", "undo", "back", "--json")
    assert undone.rows == [
        {"removed": 4, "kept": 0, "withdrawn": 0, "taken_off": 3, "tickets": 3, "tickets_failed": 0}
    ], undone.err
    assert desk.octo.labels["2"] == ["by hand"]
    assert desk.labels() == {"2": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label-set", "shop", "--out", "out.csv"], "answers to a file have no tickets"),
        (["--labels", "a,b"], "name one with --label-set"),
        (["--label-set", "intent"], "no account takes tags of 'intent'"),
    ],
)
def test_writing_back_what_has_nowhere_to_go_is_refused(tmp_path: Path, options: list[str], said: str) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config" / "accounts.toml").write_text(ACCOUNTS.format(url="http://x"), encoding="utf-8")
    tagmill = Tagmill(tmp_path, {"TAGMILL_CONFIG_DIR": str(tmp_path / "config")})
    refused = tagmill("backfill", str(source(tmp_path)), "--write-back", *options)
    assert (refused.code, said in refused.err) == (2, True), refused.err
    assert not list(tmp_path.glob(".tagmill/jobs/*"))
