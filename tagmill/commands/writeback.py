"""``tagmill writeback``: put tags where agents look, see which are ours, take them back."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from tagging.settings import Loaded, load
from tagging.wording import counted
from workers.nodes import new_node

if TYPE_CHECKING:
    from ledger.writebacks import OwnTag, WriteBackLedger

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType[datetime]):
    """A moment: ISO 8601, or so long ago as `90m`, `2h` or `7d`."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, in UTC; one without an offset is in this machine's time."""
        if isinstance(value, datetime):
            return value
        if match := re.fullmatch(r"(\d{1,6})([mhd])", value):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            self.fail(f"{value!r}: expected 2026-01-31T08:00 or so long ago as 90m, 2h or 7d", param, ctx)


since_option = click.option("--since", type=Moment(), required=True, help="2026-01-31T08:00, or so long ago as 2h.")
account_option = click.option("--account", default=None, help="Only this account's. Default: all.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group()
def command() -> None:
    """Put tags where agents look, list those that are ours, and take them back."""


@command.command(context_settings={"ignore_unknown_options": True})
@click.option("-n", "--name", default="", help="Node name. Default: tagmill-writeback-<token>@<host>.")
@click.option("-l", "--loglevel", default="WARNING", show_default=True, help="Of Celery's own log.")
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def run(name: str, loglevel: str, celery_options: tuple[str, ...]) -> None:
    """Take orders off tag.writeback and carry them out, until SIGTERM.

    Needs neither a GPU nor a model. One process keeps to each account's max_per_minute; several do so each. Exit codes:
    0 told to stop, 2 wrong settings or accounts, 3 the broker or the ledger is out of reach.
    """
    from celery.utils.nodenames import host_format

    from tagging import logs
    from tagging.errors import StoreUnavailable
    from workers.exits import Exit
    from workers.refusals import refuse_unsafe_broker
    from workers.writeback.app import make_app, queue

    app = make_app()
    node = name or new_node("tagmill-writeback")
    logs.configure(app.settings.log.level, node=host_format(node))
    refuse_unsafe_broker(app.settings, [queue(app.settings)])
    _refuse_to_run_for_nobody(app.loaded)
    try:
        _ = app.writer  # before Celery starts: an account that is wrong is refused in its own words
    except StoreUnavailable as e:
        click.echo(f"StoreUnavailable: {e}", err=True)
        sys.exit(Exit.UNREACHABLE)
    sys.exit(app.serve(["-n", node, "-l", loglevel, "--without-gossip", "--without-mingle", *celery_options]))


@command.command()
@json_option
def accounts(as_json: bool) -> None:
    """List the accounts of config/accounts.toml, and what becomes of which label set's tags; no secrets."""
    from integrations.accounts import Accounts

    found = Accounts.load(load().config_dir)
    for account in found.values():
        policies = {label_set: policy.mode for label_set, policy in account.write_back.items()}
        if as_json:
            shown = {"account": account.name, "system": account.system, "base_url": account.base_url}
            click.echo(json.dumps({**shown, "write_back": policies}, ensure_ascii=False))
        else:
            told = ", ".join(f"{label_set}: {mode}" for label_set, mode in policies.items()) or "nothing"
            click.echo(f"{account.name}  {account.system}  {account.base_url}  writes back {told}")
    click.echo(counted(len(found), "account"), err=True)


@command.command("list")
@since_option
@account_option
@json_option
def list_(since: datetime, account: str | None, as_json: bool) -> None:
    """List the tags that were set since then and are still ours."""
    from ledger.writebacks import WriteBackLedger
    from tagmill.ledgers import open_ledgers

    loaded = load()
    with open_ledgers(loaded.settings) as ledgers:
        found = _still_ours(WriteBackLedger(ledgers.database), since, account, loaded)
    for own in found:
        click.echo(_shown(own, as_json=as_json))
    click.echo(counted(len(found), "tag"), err=True)


@command.command()
@since_option
@account_option
@json_option
@click.option("--yes", is_flag=True, help="Do it. Default: only say what would be done.")
def undo(since: datetime, account: str | None, as_json: bool, yes: bool) -> None:
    """Take off the tags that were set since then and are still ours, and no others.

    Without --yes nothing is called. A tag that a person has set, or taken off and put back, is left alone. Exit code 1
    when a ticket failed; its tags stay ours, and a second try takes it up again.
    """
    from ledger.writebacks import WriteBackLedger
    from tagmill.ledgers import open_ledgers
    from workers.writeback.connections import connect_accounts
    from workers.writeback.undo import undo as take_off

    loaded = load()
    with open_ledgers(loaded.settings) as ledgers:
        ledger = WriteBackLedger(ledgers.database)
        found = _still_ours(ledger, since, account, loaded)
        if not yes:
            for own in found:
                click.echo(_shown(own, as_json=as_json))
            click.echo(f"{counted(len(found), 'tag')} would be taken off; say --yes to do it", err=True)
            return
        done = []
        for one in take_off(found, ledger=ledger, connections=connect_accounts(loaded)):
            done.append(one)
            shown = {"account": one.account, "ticket": one.ticket, "tags": list(one.tags), "error": one.error}
            plain = f"{one.account}  {one.ticket}  {one.error or ', '.join(one.tags) or 'nothing left of ours'}"
            click.echo(json.dumps(shown, ensure_ascii=False) if as_json else plain)
    failed = sum(one.error is not None for one in done)
    taken = counted(sum(len(one.tags) for one in done), "tag")
    click.echo(f"{taken} taken off, {counted(failed, 'ticket')} failed", err=True)
    sys.exit(1 if failed else 0)


def _still_ours(ledger: "WriteBackLedger", since: datetime, account: str | None, loaded: Loaded) -> "list[OwnTag]":
    """The tags of this account, or of all, that were set since then and are ours."""
    found = ledger.since(since, account=account)
    if not found:
        _refuse_unknown(account, loaded, ledger)
    return found


def _refuse_unknown(account: str | None, loaded: Loaded, ledger: "WriteBackLedger") -> None:
    """Return if there is, or was, an account of this name: one that is misspelt has no tags either."""
    from integrations.accounts import Accounts

    if account is None or account in (past := ledger.accounts()):
        return
    known = sorted({*past, *Accounts.load(loaded.config_dir)})
    if account not in known:
        raise click.BadParameter(
            f"no account {account!r}; there are: {', '.join(known) or 'none'}", param_hint="--account"
        )


def _refuse_to_run_for_nobody(loaded: Loaded) -> None:
    from integrations.accounts import ACCOUNTS_FILE, Accounts
    from tagging.errors import SettingsError

    accounts = Accounts.load(loaded.config_dir)
    if any(account.write_back for account in accounts.values()):
        return
    found = f"{counted(len(accounts), 'account')}, none of which has" if accounts else "no account with"
    raise SettingsError(
        [
            f"{loaded.config_dir / ACCOUNTS_FILE}: {found} a table [ACCOUNT.write_back.LABEL_SET]: there is nobody to "
            "write tags back to.\n    docs/writeback.md says how to write one; `tagmill writeback accounts` lists them."
        ]
    )


def _shown(own: "OwnTag", *, as_json: bool) -> str:
    assert own.set_at is not None
    if not as_json:
        return f"{own.account}  {own.ticket}  {own.tag}  [{own.label_set}]  {own.set_at:%Y-%m-%d %H:%M:%S}"
    shown = {"account": own.account, "ticket": own.ticket, "tag": own.tag, "label_set": own.label_set}
    return json.dumps({**shown, "task_id": own.task_id, "set_at": own.set_at.isoformat()}, ensure_ascii=False)
