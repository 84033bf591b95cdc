"""Calls to a ticketing system, from which nobody can make us call anything else.

Where an account's calls go is its ``base_url``, from the configuration and nowhere else. Each call resolves the host
once, refuses addresses that are not public (unless the account says ``allow_private``), and connects to the very
address that was looked at: a name that answers otherwise a moment later changes nothing. TLS still verifies the name.
Redirects are not followed, proxies of the environment are not used (its ``SSL_CERT_FILE``, for an authority of one's
own, is), an answer is bounded in size and time.
"""

import ipaddress
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import httpx

from integrations.system import Declined
from tagging.errors import SettingsError

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host; raises ``OSError``."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CONNECT_S: Final = 5.0
READ_S: Final = 10.0
TOTAL_S: Final = 30.0
MAX_BYTES: Final = 4 * 1024 * 1024

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NOT_FOR_US: Final = (
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; a cloud's metadata are at .192
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's host, by a public address
)


class AddressRefused(Declined):
    """The address is not one that this account's calls may go to; nothing was connected."""


def open_client(
    base_url: str,
    *,
    allow_private: bool = False,
    headers: Mapping[str, str] | None = None,
    resolve: Resolve | None = None,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """A client whose calls all go to this base URL.

    Args:
        base_url: From the configuration; ``https``, or ``http`` inside our own network.
        allow_private: The address may be inside our own network.
        headers: Of every call.
        resolve: In place of the system's resolver.
        transport: In place of a connection, for tests: gets requests whose host is the address that was looked at.

    Raises:
        SettingsError: The base URL is none, or names more than a server and a path.
    """
    url = _checked(base_url, allow_private=allow_private)
    return httpx.Client(
        base_url=url,
        headers={"Accept-Encoding": "identity", **(headers or {})},
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=False,
        transport=_Guarded(
            transport or httpx.HTTPTransport(),  # which takes no proxy, but SSL_CERT_FILE from the environment
            origin=_origin(url),
            allow_private=allow_private,
            resolve=resolve or addresses_of,
        ),
    )


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of the host, by the system's resolver.

    Raises:
        OSError: It has none, or the resolver does not answer.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether the address is on the public internet: not ours, this machine's or a cloud's, nor a disguise of one."""
    ip = _undisguised(ipaddress.ip_address(address))
    return (
        ip.is_global and not ip.is_multicast and not any(ip in net for net in _NOT_FOR_US if net.version == ip.version)
    )


def _undisguised(ip: Address) -> Address:
    """The IPv4 address that is reached through this IPv6 one, where there is one."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def _checked(base_url: str, *, allow_private: bool) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError):
        raise SettingsError(["base_url: not a URL; expected https://host"]) from None
    allowed = ("https", "http") if allow_private else ("https",)
    if url.scheme not in allowed:
        raise SettingsError([f"base_url: expected {' or '.join(allowed)}://host, got {url.scheme or 'no scheme'}"])
    if not url.host or url.userinfo or url.query or url.fragment:
        raise SettingsError(["base_url: expected a host and perhaps a path; secrets belong into token"])
    return url


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


class _Guarded(httpx.BaseTransport):
    """Resolves, looks at what came, and connects to that."""

    def __init__(
        self, inner: httpx.BaseTransport, *, origin: tuple[str, str, int], allow_private: bool, resolve: Resolve
    ) -> None:
        self._inner = inner
        self._origin = origin
        self._allow_private = allow_private
        self._resolve = resolve

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer, of at most ``MAX_BYTES``.

        Raises:
            AddressRefused: Nothing was connected.
            httpx.TransportError: The server was not reached, or broke off.
        """
        deadline = time.monotonic() + TOTAL_S
        if _origin(request.url) != self._origin:
            raise AddressRefused("a call to another server than base_url's")
        response = self._connect(request, self._addresses(request))
        if response.headers.get("content-encoding", "identity") != "identity":
            response.close()
            raise httpx.RemoteProtocolError("an answer in an encoding that was not asked for", request=request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Bounded(response.stream, request, deadline=deadline)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _addresses(self, request: httpx.Request) -> Sequence[str]:
        _, host, port = self._origin
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as e:
            raise httpx.ConnectError(f"{host} has no address: {type(e).__name__}", request=request) from e
        if not self._allow_private and not all(map(is_public, addresses)):
            raise AddressRefused(f"{host} is inside a network of our own; say allow_private if it is meant to be")
        return addresses

    def _connect(self, request: httpx.Request, addresses: Sequence[str]) -> httpx.Response:
        for number, address in enumerate(addresses, 1):
            try:
                return self._inner.handle_request(_pinned(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpx.ConnectError("the host has no address", request=request)


def _pinned(request: httpx.Request, address: str) -> httpx.Request:
    """The request to this address; it names its host in ``Host`` and to TLS, which verifies it."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


class _Bounded(httpx.SyncByteStream):
    """An answer's body that breaks off where it grows too large or takes too long."""

    def __init__(self, inner: httpx.SyncByteStream, request: httpx.Request, *, deadline: float) -> None:
        self._inner = inner
        self._request = request
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._inner:
            size += len(part)
            if size > MAX_BYTES:
                raise httpx.RemoteProtocolError(f"an answer of more than {MAX_BYTES:,} bytes", request=self._request)
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout(f"an answer that takes more than {TOTAL_S:g} s", request=self._request)
            yield part

    def close(self) -> None:
        """Let the connection go."""
        self._inner.close()
