"""A ticket of a real helpdesk gets its tags, once, and what we write there asks nothing of us."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.database import open_database
from ledger.intake import Intake
from tagging.names import TAG_TICKET, WRITE_BACK
from tagmill.workers import relay_process, serve_process
from tests.broker.sites import ANSWER_S, Broker, Site
from tests.children import ROOT, background
from tests.servers import RedisServer, free_port, server_folder, wait_until

ACCOUNTS = """
[desk]
system = "generic"
base_url = "{helpdesk}"
allow_private = true
secrets = ["file:{secret}"]
token = "file:{token}"
label_sets = ["shop"]
max_per_minute = 6000
[desk.options]
auth = "basic"
mapping = {{ ref = "ticket.id", title = "ticket.title", text = "ticket.description", revision = "ticket.modified" }}
tags = {{ method = "PATCH", path = "/api/tickets/{{ticket}}/", field = "custom_tags" }}
[desk.options.note]
path = "/api/followups/"
body = {{ ticket = "{{ticket}}", user = {us}, comment = "{{note}}", public = false }}
[desk.write_back.shop]
mode = "apply"
only_existing = false
thresholds = {{ "delivery" = 0.0 }}

[replies]
system = "generic"
secrets = ["file:{secret}"]
label_sets = ["shop"]
[replies.options]
kind = "comment"
own_actor = "{us}"
[replies.options.mapping]
ref = "followup_id"
text = "ticket.followup_set[-1].comment"
actor = "ticket.followup_set[-1].user"
"""
LABELS = 'labels = ["delivery", "refund"]\nmulti_label = true\napply_at = 1.0\nsuggest_at = 0.0\n'


class Helpdesk:
    """django-helpdesk, and what a browser or an agent's program does with it."""

    def __init__(self, folder: Path, hooks_port: int) -> None:
        self.port = free_port()
        hook = f"http://hook:s3cret@127.0.0.1:{hooks_port}/hooks/generic"
        self._environ = {
            "HELPDESK_DATABASE": str(folder / "helpdesk.db"),
            "HELPDESK_NEW_TICKET_WEBHOOK_URLS": f"{hook}/desk",
            "HELPDESK_FOLLOWUP_WEBHOOK_URLS": f"{hook}/replies",
            "PYTHONPATH": str(ROOT),
        }
        self._log = folder / "helpdesk.log"
        self.us = int(self._manage("prepare").splitlines()[-1])
        self._agent = httpx.Client(base_url=self.url, auth=("agent", "password"), timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        command = [sys.executable, "-m", "tests.broker.django_site", "runserver", "--noreload", str(self.port)]
        with self._agent, background(command, environ=self._environ, log=self._log):
            wait_until("the helpdesk answers", self._answers, timeout_s=30, every_s=0.1)
            yield

    def open_ticket(self, title: str, text: str) -> int:
        fields = {"queue": 1, "title": title, "description": text, "submitter_email": "customer@example.com"}
        answer = self._agent.post("/api/tickets/", json={**fields, "status": 1, "priority": 3})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def ticket(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self._agent.get(f"/api/tickets/{number}/").json()
        return found

    def notes(self, number: int) -> list[dict[str, Any]]:
        """What we have written to the ticket."""
        return [followup for followup in self.ticket(number)["followup_set"] if followup["user"] == self.us]

    def _answers(self) -> bool:
        try:
            return self._agent.get("/api/tickets/").status_code == 200
        except httpx.TransportError:
            return False

    def _manage(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.broker.django_site", *words],
            env={**os.environ, **self._environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def site(many_databases: RedisServer) -> Iterator[Site]:
    with server_folder("helpdesk") as folder, closing(Broker.on(many_databases, None).site(folder)) as site:
        yield site


@pytest.fixture
def helpdesk(site: Site) -> Iterator[Helpdesk]:
    """A helpdesk whose webhooks come to us, with everything of ours that it takes."""
    folder, port = site.folder, free_port()
    helpdesk = Helpdesk(folder, port)
    shutil.copytree(ROOT / "config", folder / "config")
    (folder / "config" / "labels" / "shop.toml").write_text(LABELS, encoding="utf-8")
    (folder / "secret").write_text("s3cret", encoding="utf-8")
    (folder / "token").write_text("tagmill:password", encoding="utf-8")
    accounts = ACCOUNTS.format(helpdesk=helpdesk.url, secret=folder / "secret", token=folder / "token", us=helpdesk.us)
    (folder / "config" / "accounts.toml").write_text(accounts, encoding="utf-8")
    site.environ |= {
        "TAGMILL_CONFIG_DIR": str(folder / "config"),
        "TAGMILL_HTTP__PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    with ExitStack() as stack:
        stack.enter_context(helpdesk.running())
        stack.enter_context(serve_process(site.environ, log=folder / "http.log"))
        stack.enter_context(relay_process(site.environ, log=folder / "relay.log"))
        stack.enter_context(site.worker().running())
        writer = [sys.executable, "-m", "tagmill", "writeback", "run"]
        stack.enter_context(background(writer, environ=site.environ, log=folder / "writer.log"))
        yield helpdesk


def test_a_ticket_gets_its_tags_once_and_our_own_note_is_no_news(site: Site, helpdesk: Helpdesk) -> None:
    number = helpdesk.open_ticket("Parcel", "The parcel has not moved for three days")
    try:
        wait_until("the ticket has its tag", lambda: helpdesk.ticket(number)["custom_tags"], timeout_s=ANSWER_S)
        wait_until("agents have the suggestion", lambda: helpdesk.notes(number), timeout_s=ANSWER_S)
        wait_until("its webhook came and asked nothing", lambda: _ignored(site), timeout_s=ANSWER_S)
    except TimeoutError as e:
        logs = [(site.folder / f"{name}.log").read_text()[-3000:] for name in ("http", "relay", "writer", "helpdesk")]
        raise AssertionError("\n---\n".join(logs)) from e
    ticket = helpdesk.ticket(number)
    assert (ticket["title"], ticket["custom_tags"]) == ("Parcel", "delivery")
    [note] = helpdesk.notes(number)
    assert ("refund" in note["comment"], note["public"]) == (True, False)
    with closing(open_database(site.settings.ledger.url)) as database:
        intake = Intake(database)
        assert [row.task for row in intake.by_ref(str(number), "desk") if row.task != WRITE_BACK] == [TAG_TICKET]
        assert not intake.by_ref(str(note["id"]), "replies")
    print("FIGURE django_helpdesk tickets=1 tags=1 notes=1 echoes_tagged=0")


def _ignored(site: Site) -> int:
    """How many webhooks were answered and accepted nothing."""
    return (site.folder / "http.log").read_text().count("route=/hooks/{system}/{name} status=200")
