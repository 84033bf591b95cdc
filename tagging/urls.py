"""URLs of servers: which kinds there are, and how they are shown."""

from typing import Final
from urllib.parse import urlsplit, urlunsplit

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
REDIS_SCHEMES: Final = ("redis", "rediss", "redis+socket")
SENTINEL: Final = "sentinel"
AMQP_SCHEMES: Final = ("amqp", "amqps", "pyamqp")


def mask_url(url: str) -> str:
    """The URL, or those of several hosts, with passwords as stars."""
    if ";" in url:
        return ";".join(map(mask_url, url.split(";")))
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
        netloc = f"{parts.username or ''}:********@{parts.netloc.rpartition('@')[2]}"
        return urlunsplit(parts._replace(netloc=netloc))
    except ValueError:
        return "********"
