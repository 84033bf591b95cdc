"""What all webhooks share: verified first, read afterwards; and an account without a secret takes none."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from integrations.accounts import Account
from integrations.system import Event, Hook
from tagging.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Verified:
    """An ``Inbound`` of two steps, in this order."""

    verify: Callable[[Hook], None]
    read: Callable[[Hook], Event]

    def receive(self, hook: Hook) -> Event:
        """See ``Inbound``."""
        self.verify(hook)
        return self.read(hook)


def require_secrets(account: Account) -> None:
    """Return if the account has a secret to verify webhooks with.

    Raises:
        SettingsError: It has none.
    """
    if not account.secrets:
        raise SettingsError([f"{account.name}.secrets: missing; without one anybody could send us tickets"])


def refuse_unknown_options(account: Account, known: Collection[str]) -> None:
    """Return if all of the account's options are known: one that is misspelt would do nothing, without a word.

    Raises:
        SettingsError: Names those that are not.
    """
    if odd := sorted(set(account.options) - set(known)):
        raise SettingsError(
            [f"{account.name}.options.{name}: unknown; {account.system} knows {', '.join(known)}" for name in odd]
        )


def tolerance_s(account: Account, default_s: float) -> float:
    """How far a timestamp may be away from our clock: ``options.tolerance_s``."""
    value = account.options.get("tolerance_s", default_s)
    if not isinstance(value, int | float) or not 0 < value <= 3600:
        raise SettingsError([f"{account.name}.options.tolerance_s: expected seconds, up to 3600"])
    return float(value)
