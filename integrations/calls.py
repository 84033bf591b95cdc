"""Calls to a system's API, with what its status means to us."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from integrations.system import Busy, Declined, Unavailable

_TOO_MANY: Final = (429, 503)


def call(
    client: httpx.Client, method: str, path: str, *, json: Any = None, params: Mapping[str, str | int] | None = None
) -> Any:
    """The JSON that is answered; None where the answer has none.

    Raises:
        Busy: It asks us to come back later.
        Unavailable: It did not answer, or failed.
        Declined: It refuses this call for good.
    """
    try:
        response = client.request(method, path, json=json, params=dict(params or {}))
    except httpx.HTTPError as e:
        raise Unavailable(f"{method} {_route(path)}: {type(e).__name__}") from e
    if response.status_code in _TOO_MANY:
        raise Busy(f"{method} {_route(path)}: {response.status_code}", after_s=_after_s(response))
    if response.status_code >= 500:
        raise Unavailable(f"{method} {_route(path)}: {response.status_code}")
    if not response.is_success:
        raise Declined(f"{method} {_route(path)}: {response.status_code}")
    try:
        return response.json() if response.content else None
    except ValueError:
        return None


def _after_s(response: httpx.Response) -> float | None:
    """Seconds that ``Retry-After`` names, as a number or as a date."""
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _route(path: str) -> str:
    """The path without what names a ticket: its numbers."""
    return "".join("0" if c.isdigit() else c for c in path.partition("?")[0])
