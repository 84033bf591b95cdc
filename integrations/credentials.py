"""What an account signs in with."""

import base64

from integrations.accounts import Account
from tagging.errors import SettingsError


def token_of(account: Account) -> str:
    """The account's token.

    Raises:
        SettingsError: It has none.
    """
    if account.token is None:
        raise SettingsError([f"{account.name}.token: missing; tags cannot be written without one"])
    return account.token.get_secret_value()


def basic(credentials: str) -> str:
    """The header of Basic authentication for a user, a colon and a password."""
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"
