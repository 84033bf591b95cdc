"""The accounts that tags are written to, each with the way to its system and its pace."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from integrations.accounts import ACCOUNTS_FILE, Account, Accounts
from integrations.system import Outbound
from tagging.errors import SettingsError
from tagging.settings import Loaded
from workers.writeback.pacing import Pace

Connect = Callable[[Account], Outbound]


@dataclass(slots=True)
class Connection:
    """An account with the way to it."""

    account: Account
    system: Outbound
    pace: Pace
    known_tags: frozenset[str] | None = None
    """The system's own list, as it was last asked for."""
    known_until: float = 0.0


def connect_accounts(loaded: Loaded, *, connect: Connect | None = None) -> dict[str, Connection]:
    """Every account that has tags written to it, by name; nothing is called yet.

    Raises:
        SettingsError: An account is wrong, or of a system to which no tags can be written.
    """
    settings = loaded.settings.writeback
    return {
        name: Connection(
            account=account,
            system=(connect or connect_account)(account),
            pace=Pace(
                max_per_minute=account.max_per_minute,
                breaker_failures=settings.breaker_failures,
                breaker_pause_s=settings.breaker_pause_s,
            ),
        )
        for name, account in Accounts.load(loaded.config_dir).items()
        if account.write_back
    }


def connect_account(account: Account) -> Outbound:
    """The way to the account's system: ``outbound`` of its module of ``integrations``.

    Raises:
        SettingsError: There is no such system, or no way to write to it.
    """
    try:
        connect: Connect = import_module(f"integrations.{account.system}").outbound
    except (ImportError, AttributeError) as e:
        text = f"{ACCOUNTS_FILE}: {account.name}.system: no tags can be written to {account.system!r} ({e})"
        raise SettingsError([text]) from None
    return connect(account)
