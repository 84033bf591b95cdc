"""An API over a SQLite ledger, with a broker in memory that may have a worker behind it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ledger.database import Database, open_database
from ledger.intake import Intake
from ledger.keys import KeyLedger, Scope
from ledger.tags import TagLedger, TagRow
from ledger.upgrade import upgrade
from producers.http.app import make_app
from tagging.errors import BrokerUnreachable
from tagging.labels import LabelBook
from tagging.messages import Decoder
from tagging.settings import Loaded, load
from tests.answers import answer
from tests.children import ROOT

Message = tuple[str, Mapping[str, Any], str]


class Queue:
    """A broker in memory. With ``worker`` what is published is tagged at once; ``away`` it takes nothing."""

    def __init__(self, database: Database) -> None:
        self._tags = TagLedger(database)
        self._decoder = Decoder(book=LabelBook(), model="demo", default_template="{}")
        self.worker = True
        self.away = False
        self.taken: list[str] = []

    def publishing(self, messages: Sequence[Message]) -> Iterable[str]:
        """See ``Broker``."""
        for task, message, id_ in messages:
            if self.away:
                raise BrokerUnreachable("redis://queue cannot be reached")
            self.taken.append(id_)
            if self.worker:
                done = answer(self._decoder.one(task, message, task_id=id_))
                self._tags.write({id_: [TagRow.of(done)]})
            yield id_

    def waiting(self, queue: str) -> int:
        """See ``Broker``."""
        return 0


class Api:
    """The API and what is behind it."""

    def __init__(self, loaded: Loaded, stack: ExitStack) -> None:
        upgrade(loaded.settings.ledger.url)
        self.database = open_database(loaded.settings.ledger.url)
        stack.callback(self.database.close)
        self.queue = Queue(self.database)
        self.loaded = loaded
        app = make_app(loaded, broker=self.queue)
        self.client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
        self.client.headers["Authorization"] = f"Bearer {self.key()}"

    def key(self, *scopes: Scope, source: str | None = None, per_minute: int = 100_000) -> str:
        """A new key's token."""
        made = KeyLedger(self.database).create(
            "test", scopes=scopes or ("enqueue", "read"), source=source, per_minute=per_minute
        )
        return made.token

    def message(self, id_: str) -> Any:
        """A message as it was accepted."""
        return Intake(self.database).message(id_)

    def as_(self, token: str) -> dict[str, str]:
        """Headers of whoever holds this key."""
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def open_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Opens an API with these settings, as ``http__wait_s=1``."""
    with ExitStack() as stack:

        def open_(*, config_dir: Path = ROOT / "config", **settings: object) -> Api:
            given = {f"TAGMILL_{name.upper()}": str(value) for name, value in settings.items()}
            environ = {
                "TAGMILL_LEDGER__URL": f"sqlite:///{tmp_path}/ledger.db",
                "TAGMILL_RESULTS__URL": "cache+memory://",
                "TAGMILL_HTTP__WAIT_S": "5",
                "TAGMILL_MODEL__NAME": "demo",
                **given,
            }
            return Api(load(environ=environ, config_dir=config_dir), stack)

        yield open_


@pytest.fixture
def api(open_api: Callable[..., Api]) -> Api:
    """An API with a worker behind it."""
    return open_api()
