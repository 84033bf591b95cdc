"""Callers of the HTTP API get their answers, hundreds at once on a handful of connections.

Who sends more than can be done is turned away: row A36.
"""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from ledger.database import open_database
from ledger.intake import Intake
from ledger.keys import KeyLedger
from tagmill.workers import serve_process
from tests.broker.sites import CANARY, LABELS, Broker, Site
from tests.processes import Worker
from tests.servers import RedisServer, free_port, launched, server_folder, wait_until

WAITERS = 150


class Api:
    """A `tagmill serve` of a site, and a key to it."""

    def __init__(self, site: Site, url: str) -> None:
        self.site = site
        self.url = url
        with closing(open_database(site.settings.ledger.url)) as database:
            made = KeyLedger(database).create("tests", scopes=["enqueue", "read"], source=None, per_minute=100_000)
        self.headers = {"Authorization": f"Bearer {made.token}"}

    def ask(self, ref: str, **headers: str) -> httpx.Response:
        """Send one ticket and wait for its answer."""
        return httpx.post(f"{self.url}/v1/tags", json=ticket(ref), headers={**self.headers, **headers}, timeout=60)

    def get(self, path: str) -> Any:
        """What a route answers."""
        return httpx.get(self.url + path, headers=self.headers, timeout=60)

    async def ask_all(self, refs: list[str]) -> list[httpx.Response]:
        """Send a ticket for each of these at once, and wait for all answers."""
        limits = httpx.Limits(max_connections=len(refs))
        async with httpx.AsyncClient(headers=self.headers, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(client.post(f"{self.url}/v1/tags", json=ticket(ref)) for ref in refs))


def ticket(ref: str) -> dict[str, object]:
    return {"text": f"{ref} {CANARY}", "labels": list(LABELS), "ref": ref, "source": "shop"}


@pytest.fixture
def results() -> Iterator[RedisServer]:
    """A Redis for results that a test may kill."""
    with launched(RedisServer) as server:
        yield server


@pytest.fixture
def own_site(broker: Broker, results: RedisServer) -> Iterator[Site]:
    with server_folder("http") as folder:
        site = broker.site(folder)
        site.environ |= {
            "TAGMILL_RESULTS__URL": results.url,
            "TAGMILL_HTTP__PORT": str(free_port()),
            "TAGMILL_HTTP__WAIT_S": "40",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        site.__post_init__()
        with closing(site):
            yield site


@pytest.fixture
def own_worker(own_site: Site) -> Iterator[Worker]:
    with own_site.worker().running() as worker:
        yield worker


@pytest.fixture
def api(own_site: Site, own_worker: Worker) -> Iterator[Api]:
    with serve_process(own_site.environ, log=own_site.folder / "http.log") as serving:
        yield Api(own_site, serving.url)
    assert CANARY not in (own_site.folder / "http.log").read_text()


def test_answers_reach_those_who_wait_for_them(api: Api, results: RedisServer) -> None:
    answer = api.ask("T-1")
    assert (answer.status_code, answer.json()["ref"]) == (200, "T-1")

    later = api.ask("T-2", Prefer="wait=0")
    assert later.status_code in (200, 202)
    wait_until("it is tagged", lambda: api.get("/v1/tickets/shop/T-2").json()["tags"])

    with redis.Redis.from_url(results.url) as client:
        answers = asyncio.run(api.ask_all([f"many-{i}" for i in range(WAITERS)]))
        connections = len(client.client_list())
    assert {response.status_code for response in answers} == {200}
    assert [response.json()["ref"] for response in answers] == [f"many-{i}" for i in range(WAITERS)]
    print(f"FIGURE waiters n={WAITERS} broker={api.site.broker.name} redis_connections={connections} errors=0")
    assert connections < 20

    results.kill()
    results.start()
    assert api.ask("T-3").json()["ref"] == "T-3"
    assert api.get("/readyz").status_code == 200


def test_what_is_too_much_is_turned_away_and_what_was_taken_is_tagged(broker: Broker, results: RedisServer) -> None:
    """Row A36: callers that send as fast as they can, to a worker that is slower."""
    with server_folder("flood") as folder, closing(broker.site(folder)) as site:
        site.environ |= {
            "TAGMILL_RESULTS__URL": results.url,
            "TAGMILL_HTTP__PORT": str(free_port()),
            "TAGMILL_HTTP__MAX_UNFINISHED": "100",
            "TAGMILL_MODEL__NAME": "fake:pass_s=0.4",
            "TAGMILL_BATCHING__MAX_MESSAGES": "4",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        site.__post_init__()
        with site.worker().running(), serve_process(site.environ, log=folder / "http.log") as serving:
            api = Api(site, serving.url)
            taken, turned_away, most = asyncio.run(_flood(api))
            wait_until("all that was taken is tagged", lambda: _done(api) == len(taken), timeout_s=90, every_s=0.3)
    counts = f"taken={len(taken)} turned_away={len(turned_away)} most_unfinished={most}"
    print(f"FIGURE flood broker={broker.name} {counts} lost=0")
    assert most <= 100 + SENDERS
    assert turned_away, "it was never too much"
    assert {response.status_code for response in turned_away} == {429}
    assert all(int(response.headers["Retry-After"]) >= 5 for response in turned_away)


FLOOD_S = 8.0
FLOOD_AT_MOST_S = 60.0
"""Where the machine is so busy that it takes longer to be too much."""
SENDERS = 8


async def _flood(api: Api) -> tuple[list[str], list[httpx.Response], int]:
    """Send for some seconds, and until it is too much.

    Returns:
        The ids that were taken, what the others were told, and the most that was unfinished.
    """
    taken: list[str] = []
    turned_away: list[httpx.Response] = []
    most = 0
    began = asyncio.get_running_loop().time()

    def is_over() -> bool:
        return asyncio.get_running_loop().time() > began + (FLOOD_S if turned_away else FLOOD_AT_MOST_S)

    async def send(client: httpx.AsyncClient, sender: int) -> None:
        for number in itertools.count():
            if is_over():
                return
            response = await client.post(f"{api.url}/v1/tasks", json=ticket(f"{sender}-{number}"))
            if response.status_code == 202:
                taken.append(response.json()["tasks"][0]["id"])
            else:
                turned_away.append(response)
                await asyncio.sleep(0.05)

    async def watch() -> None:
        nonlocal most
        while not is_over():
            most = max(most, await asyncio.to_thread(_unfinished, api))
            await asyncio.sleep(0.2)

    async with httpx.AsyncClient(headers=api.headers, timeout=60) as client:
        await asyncio.gather(watch(), *(send(client, sender) for sender in range(SENDERS)))
    return taken, turned_away, most


def _unfinished(api: Api) -> int:
    with closing(open_database(api.site.settings.ledger.url)) as database:
        return Intake(database).load().unfinished


def _done(api: Api) -> int:
    with closing(open_database(api.site.settings.ledger.url)) as database:
        return Intake(database).counts().get("done", 0)
