"""Calls to a system's API, with what its status means to us."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from integrations.system import Busy, Declined, Unavailable

_TOO_MANY: Final = (429, 503)
_LONGEST_S: Final = 86_400.0
"""Nobody is believed to ask for more."""


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
    if response.status_code in _TOO_MANY or _is_throttled(response):
        raise Busy(f"{method} {_route(path)}: {response.status_code}", after_s=_after_s(response))
    if response.status_code >= 500:
        raise Unavailable(f"{method} {_route(path)}: {response.status_code}")
    if not response.is_success:
        raise Declined(f"{method} {_route(path)}: {response.status_code}")
    try:
        return response.json() if response.content else None
    except ValueError:
        return None


def _is_throttled(response: httpx.Response) -> bool:
    """Whether a 403 means too many calls and not a missing right: GitHub's may."""
    if response.status_code != 403:
        return False
    is_used_up = response.headers.get("x-ratelimit-remaining") == "0"
    return is_used_up or "retry-after" in response.headers or b"rate limit" in response.content


def _after_s(response: httpx.Response) -> float | None:
    """Seconds that ``Retry-After`` names, as a number or as a date, else those until ``X-RateLimit-Reset``."""
    value, reset_at = (response.headers.get(name, "") for name in ("retry-after", "x-ratelimit-reset"))
    now = datetime.now(UTC)
    if value.isdecimal():
        return min(float(value), _LONGEST_S)
    if not value and reset_at.isdecimal():
        return min(max(0.0, float(reset_at) - now.timestamp()), _LONGEST_S)
    try:
        return min(max(0.0, (parsedate_to_datetime(value) - now).total_seconds()), _LONGEST_S)
    except (ValueError, TypeError):
        return None


def _route(path: str) -> str:
    """The path without what names a ticket: its numbers."""
    return "".join("0" if c.isdigit() else c for c in path.partition("?")[0])
