"""A little server on loopback that keeps labels as GitHub does, and the write-back worker's app that talks to it.

celery -A tests.broker.octo worker
"""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import quote, unquote

import httpx

from integrations.accounts import Account
from integrations.outbound import open_client
from integrations.system import Busy, Declined, Unavailable
from tests.servers import HOST

ACCOUNTS = """
[desk]
system = "octo"
base_url = "{url}"
allow_private = true
label_sets = ["shop"]
max_per_minute = 6000
[desk.write_back.shop]
mode = "apply"
only_existing = false
thresholds = {{ {thresholds} }}
"""


class OctoServer:
    """Issues with their labels and comments; may be told to be busy, or to keep an answer back."""

    def __init__(self) -> None:
        self.labels: defaultdict[str, list[str]] = defaultdict(list)
        self.comments: defaultdict[str, list[str]] = defaultdict(list)
        self.posts: Counter[str] = Counter()
        """By issue: how often labels were added."""
        self.busy = 0
        """So many calls are answered with 429."""
        self._tells = threading.Event()
        self._tells.set()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Inside the block labels are added and nobody is told; who asked is kept waiting."""
        self._tells.clear()
        try:
            yield
        finally:
            self._tells.set()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """It listens inside the block."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                with suppress(ConnectionError):  # who asked may be gone
                    server.answer(self)

            do_POST = do_DELETE = do_GET  # noqa: N815  # http.server's names

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One call."""
        if self.busy > 0:
            self.busy -= 1
            request.send_response(429)
            request.send_header("Retry-After", "1")
            request.end_headers()
            return
        body = json.loads(request.rfile.read(int(request.headers.get("Content-Length", 0))) or b"{}")
        found = self._do(request.command, request.path, body)
        if request.command == "POST":
            self._tells.wait()
        data = json.dumps(found).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _do(self, command: str, path: str, body: dict[str, Any]) -> Any:
        _, _, rest = path.partition("/issues/")
        issue, _, what = rest.partition("/")
        if command == "GET" and not what:
            return {"labels": [{"name": label} for label in self.labels[issue]]}
        if what == "comments":
            self.comments[issue].append(body["body"])
            return {}
        labels = self.labels[issue]
        if command == "POST":
            self.posts[issue] += 1
            labels += [label for label in body["labels"] if label not in labels]
        elif command == "DELETE":
            labels.remove(unquote(path.rpartition("/")[2]))
        return [{"name": label} for label in labels]


class Octo:
    """An ``Outbound`` over such a server; a reference is an issue's number."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ticket_of(self, ref: str) -> str:
        """The issue itself."""
        return ref

    def tag_of(self, label: str) -> str:
        """As it is."""
        return label

    def known_tags(self) -> frozenset[str] | None:
        """It takes any."""
        return None

    def tags_of(self, ticket: str) -> frozenset[str]:
        """The issue's labels."""
        return frozenset(label["name"] for label in self._call("GET", f"{ticket}/labels"))

    def add(self, ticket: str, tags: Collection[str]) -> None:
        """Adds; the server keeps those that are there."""
        self._call("POST", f"{ticket}/labels", {"labels": list(tags)})

    def remove(self, ticket: str, tags: Collection[str]) -> None:
        """One call each."""
        for tag in tags:
            self._call("DELETE", f"{ticket}/labels/{quote(tag, safe='')}")

    def suggest(self, ticket: str, note: str) -> None:
        """A comment."""
        self._call("POST", f"{ticket}/comments", {"body": note})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            answer = self._client.request(method, f"/repos/octo/desk/issues/{path}", json=body)
        except httpx.TransportError as e:
            raise Unavailable(f"{method}: {type(e).__name__}") from e
        if answer.status_code == 429:
            raise Busy("429", after_s=float(answer.headers["Retry-After"]))
        if answer.is_error:
            raise Declined(f"{method}: {answer.status_code}")
        return answer.json()


def connect(account: Account) -> Octo:
    """The way to the account's server."""
    return Octo(open_client(account.base_url, allow_private=account.allow_private))
