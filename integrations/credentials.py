"""What an account signs in with."""

import base64
from collections.abc import Mapping

import httpx

from integrations.accounts import Account
from integrations.outbound import open_client
from tagging.errors import SettingsError


def client_of(account: Account, headers: Mapping[str, str]) -> httpx.Client:
    """A client that calls the account's system and nobody else, with these headers on every call.

    Raises:
        SettingsError: The account's base URL is none.
    """
    return open_client(account.base_url, allow_private=account.allow_private, headers=headers)


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
