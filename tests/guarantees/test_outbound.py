"""A call to a ticketing system goes to its own public address or nowhere.

Row A38.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from integrations.outbound import MAX_BYTES, AddressRefused, is_public, open_client
from tagging.errors import SettingsError

PUBLIC = "93.184.216.34"

HOSTS = (
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "0", "0.0.0.0",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "localhost", "localhost.", "LOCALHOST", "127.0.0.1.nip.example", "loopback.example", "mixed.example",
    "10.0.0.5", "192.168.1.1", "169.254.169.254", "[fd00:ec2::254]",
)  # fmt: skip
NAMES = {
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "loopback.example": ["127.0.0.1"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
}


def resolve(host: str, port: int) -> list[str]:
    """As the system does, which knows many spellings of an address; and names of the tests' own."""
    if host in NAMES:
        return NAMES[host]
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass
class Listener:
    """Listens on every loopback address of a port and counts who connects."""

    port: int = 0
    connects: int = 0
    _sockets: list[socket.socket] = field(default_factory=list)

    def start(self) -> None:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listening = socket.socket(family)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((host, self.port))
            listening.listen()
            self.port = listening.getsockname()[1]
            self._sockets.append(listening)
            threading.Thread(target=self._count, args=(listening,), daemon=True).start()

    def stop(self) -> None:
        for listening in self._sockets:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _count(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.connects += 1
            connection.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    found.start()
    yield found
    found.stop()


def test_no_spelling_of_an_inner_address_is_connected(listener: Listener) -> None:
    assert len(HOSTS) == 25
    for host in HOSTS:
        # A spelling that is refused as no URL, or that no resolver knows, is as good: nobody connects.
        with (
            pytest.raises((AddressRefused, SettingsError, httpx.ConnectError)) as refusal,
            open_client(f"https://{host}:{listener.port}", resolve=resolve) as client,
        ):
            client.get("/")
        assert not isinstance(refusal.value, httpx.ConnectError) or "has no address" in str(refusal.value), host
    print(f"A38: urls={len(HOSTS)} connects={listener.connects}")
    assert listener.connects == 0


def test_the_same_listener_is_connected_where_the_account_allows_it(listener: Listener) -> None:
    with (
        open_client(f"http://127.0.0.1:{listener.port}", allow_private=True) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/")
    assert listener.connects == 1, "else the test above could not have failed"


class Server(httpx.MockTransport):
    """Answers as told, and keeps the requests as they would have been connected."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.requests: list[httpx.Request] = []
        super().__init__(lambda request: (self.requests.append(request), (answer or ok)(request))[1])


def ok(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={})


def rebinding(*answers: str) -> Callable[[str, int], Sequence[str]]:
    """A resolver that answers otherwise each time."""
    left = list(answers)
    return lambda _host, _port: [left.pop(0)]


def test_a_redirect_is_not_followed_and_its_target_is_refused(listener: Listener) -> None:
    inside = f"https://127.0.0.1:{listener.port}/"
    server = Server(lambda _: httpx.Response(302, headers={"Location": inside}))
    with open_client("https://desk.example", resolve=lambda *_: [PUBLIC], transport=server) as client:
        assert client.get("/").status_code == 302
        with pytest.raises(AddressRefused, match="another server"):
            client.get(inside)
    print(f"A38: redirect connects={listener.connects}")
    assert (listener.connects, len(server.requests)) == (0, 1)


def test_a_name_that_answers_otherwise_a_moment_later_changes_nothing() -> None:
    server = Server()
    with open_client("https://desk.example", resolve=rebinding(PUBLIC, "127.0.0.1"), transport=server) as client:
        client.get("/api")
        with pytest.raises(AddressRefused):
            client.get("/api")
    [request] = server.requests
    assert request.url.host == PUBLIC, "connected is what was looked at"
    assert request.headers["host"] == "desk.example"
    assert request.extensions["sni_hostname"] == "desk.example", "TLS verifies the name"


def test_another_address_is_tried_where_one_does_not_answer() -> None:
    def first_is_down(request: httpx.Request) -> httpx.Response:
        if request.url.host == PUBLIC:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    server = Server(first_is_down)
    with open_client("https://desk.example", resolve=lambda *_: [PUBLIC, "2606:4700::1"], transport=server) as client:
        assert client.get("/").status_code == 200
    assert [request.url.host for request in server.requests] == [PUBLIC, "2606:4700::1"]


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "172.16.0.1", "192.168.0.1", "127.8.9.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
        "192.0.0.192", "168.63.129.16", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "0.0.0.0", "::",
        "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address_is_known(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://desk.example", "expected https"),
        ("desk.example", "no scheme"),
        ("file:///etc/passwd", "got file"),
        ("https://", "a host"),
        ("https://user:password@desk.example", "secrets belong into token"),
        ("https://desk.example/?token=s3cret", "secrets belong into token"),
        ("https://[::1", "not a URL"),
    ],
)
def test_a_base_url_that_is_wrong_is_refused_without_its_secrets(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refusal:
        open_client(url)
    assert "password" not in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def test_an_answer_that_does_not_end_is_cut_off() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(65536)

    server = Server(lambda _: httpx.Response(200, content=endless()))
    with (
        open_client("https://desk.example", resolve=lambda *_: [PUBLIC], transport=server) as client,
        pytest.raises(httpx.RemoteProtocolError, match=f"more than {MAX_BYTES:,} bytes"),
    ):
        client.get("/")


def test_an_answer_that_would_unfold_in_memory_is_refused() -> None:
    server = Server(lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"")))
    with (
        open_client("https://desk.example", resolve=lambda *_: [PUBLIC], transport=server) as client,
        pytest.raises(httpx.RemoteProtocolError, match="encoding"),
    ):
        client.get("/")
