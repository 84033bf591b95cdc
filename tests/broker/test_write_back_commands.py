"""``tagmill writeback``: lists accounts and own tags, and takes nothing back that it was not told to."""

import shutil
from pathlib import Path

import pytest

from ledger.database import open_database
from ledger.upgrade import upgrade
from tests.commands import ROOT, Tagmill
from tests.servers import RedisServer
from tests.writebacks import Desk, answered

ACCOUNTS = """
[zendesk]
system = "nowhere"
base_url = "https://shop.example"
token = "env:SHOP_TOKEN"
label_sets = ["topics"]
[zendesk.write_back.topics]
mode = "apply"
"""


@pytest.fixture
def tagmill(tmp_path: Path) -> Tagmill:
    """A deployment with one account, of a system that has no module, and a tag that was set on one ticket."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config" / "accounts.toml").write_text(ACCOUNTS, encoding="utf-8")
    url = f"sqlite:///{tmp_path}/ledger.db"
    upgrade(url)
    database = open_database(url)
    desk = Desk(database)
    desk.tagged(answered())
    desk.deliver()
    database.close()
    environ = {
        "TAGMILL_CONFIG_DIR": str(tmp_path / "config"), "TAGMILL_LEDGER__URL": url, "SHOP_TOKEN": "t0ken"
    }  # fmt: skip
    return Tagmill(tmp_path, environ)


def test_accounts_are_shown_without_their_secrets(tagmill: Tagmill) -> None:
    done = tagmill("writeback", "accounts", "--json")
    assert (done.code, done.err) == (0, "1 account\n")
    assert done.rows == [
        {
            "account": "zendesk",
            "system": "nowhere",
            "base_url": "https://shop.example",
            "write_back": {"topics": "apply"},
        }
    ]
    assert "t0ken" not in done.out


def test_own_tags_are_listed_since_a_moment(tagmill: Tagmill) -> None:
    done = tagmill("writeback", "list", "--since", "2026-01-01", "--json")
    assert [(row["ticket"], row["tag"], row["label_set"]) for row in done.rows] == [("T-1", "billing", "topics")]
    assert tagmill("writeback", "list", "--since", "2200-01-01T00:00", "--json").rows == []
    wrong = tagmill("writeback", "list", "--since", "yesterday")
    assert wrong.code == 2
    assert "90m, 2h or 7d" in wrong.err


def test_an_undo_calls_nobody_unless_it_is_told_to(tagmill: Tagmill) -> None:
    planned = tagmill("writeback", "undo", "--since", "2026-01-01")
    assert (planned.code, "zendesk  T-1  billing" in planned.out) == (0, True)
    assert "1 tag would be taken off; say --yes" in planned.err


@pytest.mark.parametrize("command", ["list", "undo"])
def test_an_account_that_is_misspelt_is_not_one_without_tags(tagmill: Tagmill, command: str) -> None:
    misspelt = tagmill("writeback", command, "--since", "2026-01-01", "--account", "zendsk")
    assert misspelt.code == 2
    assert "no account 'zendsk'; there are: zendesk" in misspelt.err
    none_lately = tagmill("writeback", command, "--since", "2200-01-01", "--account", "zendesk")
    assert (none_lately.code, none_lately.err.partition(" ")[0]) == (0, "0")


@pytest.mark.parametrize(
    ("accounts", "found"),
    [
        ("", "no account with a table"),
        ('[shop]\nsystem = "zendesk"\nlabel_sets = ["topics"]', "1 account, none of which"),
    ],
    ids=["none", "none that is written to"],
)
def test_a_worker_that_could_write_to_nobody_does_not_start(
    tagmill: Tagmill, accounts: str, found: str, redis_server: RedisServer
) -> None:
    (tagmill.folder / "config" / "accounts.toml").write_text(accounts, encoding="utf-8")
    done = Tagmill(tagmill.folder, {**tagmill.environ, "TAGMILL_BROKER__URL": redis_server.url})("writeback", "run")
    assert done.code == 2
    assert f"accounts.toml: {found}" in done.err
    assert "docs/writeback.md" in done.err


@pytest.mark.parametrize("command", [["undo", "--since", "2026-01-01", "--yes"], ["run"]])
def test_a_system_that_nobody_can_write_to_is_named(tagmill: Tagmill, command: list[str], redis_server) -> None:
    tagmill = Tagmill(tagmill.folder, {**tagmill.environ, "TAGMILL_BROKER__URL": redis_server.url})
    done = tagmill("writeback", *command)
    assert done.code == 2
    assert "accounts.toml: zendesk.system: no tags can be written to 'nowhere'" in done.err
