"""Each role works as a user of the broker who may do nothing else.

Set up as ``docs/security.md`` says.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import amqp
import httpx
import pytest
import redis
from amqp.exceptions import AccessRefused
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from ledger.database import open_database
from ledger.intake import Intake, Submission
from ledger.keys import KeyLedger
from ledger.upgrade import upgrade
from producers.app import make_app
from tagging.names import TAG_TICKET
from tagging.settings import load
from tagmill.workers import serve_process
from tests.broker.octo import ACCOUNTS, OctoServer
from tests.broker.sites import ANSWER_S
from tests.children import background
from tests.commands import Tagmill
from tests.processes import ROOT, Worker
from tests.servers import HOST, RabbitServer, RedisServer, free_port, launched, server_folder, wait_until

PAGE: Final = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
PASSWORD: Final = "open-sesame"
FLOWER_PASSWORD: Final = "swordfish"
WORKER, PRODUCER, WRITEBACK, FLOWER = "tagmill-worker", "tagmill-producer", "tagmill-writeback", "tagmill-flower"


def lines_of(kind: str) -> list[str]:
    """The commands in the page's blocks of this kind, with a password."""
    blocks = re.findall(rf"^```{re.escape(kind)}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [line.replace("PASSWORD", PASSWORD) for block in blocks for line in block.splitlines()]


Attempt = tuple[str, Callable[[amqp.Channel], object]]


class GuardedRedis(RedisServer):
    """A Redis on which nobody without a name may do anything."""

    def url_of(self, user: str, database: int = 0) -> str:
        """Where this user connects."""
        return f"redis://{user}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def client(self, user: str) -> redis.Redis:
        """A client of this user."""
        return redis.Redis.from_url(self.url_of(user), decode_responses=True)

    def guard(self) -> None:
        """Give it the page's commands, as an administrator would."""
        with redis.Redis.from_url(self.url) as client:
            version = [int(part) for part in client.info("server")["redis_version"].split(".")[:2]]
            for line in [*(lines_of("redis-7.2") if version >= [7, 2] else []), *lines_of("redis")]:
                client.execute_command(*shlex.split(line))

    @property
    def refusals(self) -> list[dict[str, Any]]:
        """What anybody was refused since the last look."""
        with self.client("tagmill-admin") as client:
            found: list[dict[str, Any]] = client.acl_log()
            client.acl_log_reset()
        return found


@pytest.fixture(scope="module")
def guarded_redis() -> Iterator[GuardedRedis]:
    with launched(GuardedRedis) as server:
        server.guard()
        yield server


@pytest.fixture(scope="module")
def guarded_rabbit(rabbit_server: RabbitServer) -> Callable[[str], str]:
    """The URL of each user on a RabbitMQ that has the page's."""
    lines = [shlex.split(line)[1:] for line in lines_of("rabbitmqctl")]
    for verbs in ("add_vhost", "add_user"), ("set_permissions", "set_topic_permissions"):
        with ThreadPoolExecutor() as threads:  # each takes seconds, and its turn does not matter
            list(threads.map(lambda words: rabbit_server.control(*words), [w for w in lines if w[0] in verbs]))
    return lambda user: f"amqp://{user}:{PASSWORD}@{HOST}:{rabbit_server.port}/tagmill"


class Company:
    """A site whose processes are each a user of their own, and a server that gets the tags."""

    def __init__(self, folder: Path, octo: OctoServer, url_of: Callable[[str], str], results: GuardedRedis) -> None:
        self.folder = folder
        self.octo = octo
        self._url_of = url_of
        self._results = results
        self._ledger = f"sqlite:///{folder}/ledger.db"
        upgrade(self._ledger)
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "config" / "labels" / "shop.toml").write_text('labels = ["退款", "物流"]\n', encoding="utf-8")
        accounts = ACCOUNTS.format(url=octo.url, thresholds='"退款" = 0.0, "物流" = 0.0')
        (folder / "config" / "accounts.toml").write_text(accounts, encoding="utf-8")
        self.asking = make_app(load(environ=self.environ(FLOWER)).settings)

    def environ(self, user: str) -> dict[str, str]:
        """The settings of a process of this user."""
        return {
            "TAGMILL_BROKER__URL": self._url_of(user),
            "TAGMILL_RESULTS__URL": self._results.url_of(user, 1),
            "TAGMILL_CACHE__URL": self._results.url_of(user, 1) if user == WORKER else "",
            "TAGMILL_LEDGER__URL": self._ledger,
            "TAGMILL_MODEL__NAME": "fake",
            "TAGMILL_MODEL__ISOLATE": "false",
            "TAGMILL_FLOWER__PASSWORD": FLOWER_PASSWORD,
            "PYTHONPATH": str(ROOT),
        }

    @contextmanager
    def working(self) -> Iterator[None]:
        """Everybody is at work inside the block, and ended well when it is left."""
        accounts = {"TAGMILL_CONFIG_DIR": str(self.folder / "config")}
        # As plain `celery worker` and as `tagmill writeback run` would, with an app that knows the tests' server.
        tagging = self._worker("w1@tests", environ=self.environ(WORKER) | accounts)
        writing = self._worker(
            "writeback@tests",
            "--without-mingle",
            "--without-gossip",
            environ=self.environ(WRITEBACK) | accounts,
            app="tests.broker.octo_worker",
        )
        tagging.launch()  # all at once: each takes seconds to import what it needs
        writing.launch()
        with ExitStack() as stack:
            stack.callback(tagging.kill)
            stack.callback(writing.kill)
            port, flower_port = free_port(), free_port()
            self.flower_url = f"http://{HOST}:{flower_port}"
            for user, command in {PRODUCER: ["relay"], FLOWER: ["flower", "--port", str(flower_port)]}.items():
                stack.enter_context(
                    background(
                        [sys.executable, "-m", "tagmill", *command],
                        environ=self.environ(user),
                        log=self.folder / f"{command[0]}.log",
                        grace_s=10,
                    )
                )
            serving = self.environ(PRODUCER) | {"TAGMILL_HTTP__PORT": str(port), "TAGMILL_HTTP__WAIT_S": "30"}
            self.http_url = stack.enter_context(serve_process(serving, log=self.folder / "serve.log")).url
            for worker in (tagging, writing):
                wait_until(f"{worker.name} answers a ping", lambda w=worker: self._answers(w), timeout_s=ANSWER_S)
            yield
            assert (tagging.stop(), writing.stop()) == (0, 0)
        for log in self.folder.glob("*.log"):
            assert not re.search("NOPERM|ACCESS_REFUSED|Traceback", log.read_text()), log.read_text()

    def ask_over_http(self) -> None:
        """A caller sends a ticket and waits for its answer."""
        with closing(open_database(self._ledger)) as database:
            token = KeyLedger(database).create("t", scopes=["enqueue"], source=None, per_minute=100).token
        answer = httpx.post(
            f"{self.http_url}/v1/tags",
            json={"text": "over http", "labels": ["a", "b"], "source": "shop", "ref": "1"},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        assert (answer.status_code, answer.json()["ref"]) == (200, "1")

    def ask_on_the_command_line(self) -> None:
        """Somebody enqueues a text and waits for its answer."""
        tagmill = Tagmill(self.folder, self.environ(PRODUCER))
        for options in ([], ["--direct"]):
            ran = tagmill("enqueue", "by hand", "-l", "a,b", "--wait", "30", "--json", *options)
            assert ran.code == 0, ran.err
            assert ran.rows[0]["answer"]["tags"]

    def write_back(self) -> None:
        """A ticket's tags are put on it: over the relay, the tagging worker, the relay and the write-back worker."""
        message = {
            "text": "write me",
            "label_set": "shop",
            "source": "desk",
            "ref": "7",
            "revision": 1,
            "write_back": {"system": "desk"},
        }
        with closing(open_database(self._ledger)) as database:
            Intake(database).accept([Submission(id="t-7", task=TAG_TICKET, message=message)])
        wait_until("the tags are on the ticket", lambda: bool(self.octo.labels["7"]), timeout_s=ANSWER_S)

    def watch(self) -> None:
        """Somebody looks at Flower: at workers, tasks, results and queues."""

        def shown(path: str) -> Any:
            answer = httpx.get(f"{self.flower_url}{path}", auth=("tagmill", FLOWER_PASSWORD), timeout=30)
            assert answer.status_code == 200, (path, answer.text)
            return answer.json()

        assert {"w1@tests", "writeback@tests"} <= set(shown("/api/workers?refresh=1"))
        wait_until("Flower saw a task end", lambda: shown("/api/tasks?state=SUCCESS") != {}, timeout_s=ANSWER_S)
        assert shown("/api/task/result/t-7")["state"] == "SUCCESS"
        if self._url_of(FLOWER).startswith("redis"):  # of RabbitMQ it would ask the management plugin
            assert all(queue["messages"] == 0 for queue in shown("/api/queues/length")["active_queues"])

    def _worker(self, name: str, *arguments: str, **options: Any) -> Worker:
        shown = ("--loglevel", "info", *arguments)
        return Worker(self.folder, control=self.asking, name=name, arguments=shown, **options)

    def _answers(self, worker: Worker) -> bool:
        assert not worker.ended, worker.last_lines()
        return bool(self.asking.control.ping(destination=[worker.name], timeout=1.0, limit=1))


@contextmanager
def company_on(url_of: Callable[[str], str], results: GuardedRedis) -> Iterator[Company]:
    with server_folder("rights") as folder, OctoServer().running() as octo:
        company = Company(folder, octo, url_of, results)
        with closing(company.asking):
            try:
                yield company
            except BaseException:
                for log in sorted(folder.glob("*.log")):
                    print(f"--- {log.name}\n{log.read_text()[-2000:]}")
                raise


def do_all_work(company: Company) -> None:
    with company.working():
        company.write_back()
        company.ask_over_http()
        company.ask_on_the_command_line()
        company.watch()


REFUSED_BY_REDIS: Final = [
    *((user, command) for user in (WORKER, PRODUCER, WRITEBACK, FLOWER) for command in (
        "FLUSHALL", "FLUSHDB", "CONFIG SET appendonly no", "CONFIG GET *", "KEYS *", "SCAN 0", "ACL LIST", "MONITOR",
        "SHUTDOWN NOSAVE", "SCRIPT FLUSH", "CLIENT KILL TYPE normal", "SAVE", "REPLICAOF NO ONE",
        "GET somebody-elses", "SET somebody-elses 1", "PUBLISH somebody-elses x", "DEL tag.tickets",
        "RENAME tag.bulk x", "PSUBSCRIBE *", "EVAL return(redis.call('flushall')) 0",
        "MIGRATE 127.0.0.1 1 tag.tickets 0 1",
    )),
    (WORKER, "DEL unacked"), (WORKER, "LRANGE tag.tickets 0 -1"), (WORKER, "RPOP tag.writeback"),
    (PRODUCER, "EVAL return(1) 0"), (PRODUCER, "SCRIPT LOAD return(1)"), (PRODUCER, "RPOP tag.tickets"),
    (PRODUCER, "LRANGE tag.tickets 0 -1"), (PRODUCER, "LTRIM tag.tickets 1 0"), (PRODUCER, "HGETALL unacked"),
    (PRODUCER, "SET celery-task-meta-1 forged"), (PRODUCER, "PUBLISH celery-task-meta-1 forged"),
    (PRODUCER, "PUBLISH /0.celery.pidbox shutdown"), (PRODUCER, "PUBLISH /0.celeryev/task.succeeded forged"),
    (PRODUCER, "SREM _kombu.binding.tag x"), (PRODUCER, "GET tagmill:pairs:1"), (PRODUCER, "LPUSH tag.dead x"),
    (WRITEBACK, "RPOP tag.tickets"), (WRITEBACK, "LPUSH tag.tickets x"), (WRITEBACK, "HGETALL unacked"),
    (WRITEBACK, "HGET unacked 1"), (WRITEBACK, "GET celery-task-meta-1"), (WRITEBACK, "GET tagmill:pairs:1"),
    (FLOWER, "LPUSH tag.tickets x"), (FLOWER, "RPOP tag.tickets"), (FLOWER, "LRANGE tag.tickets 0 -1"),
    (FLOWER, "EVAL return(1) 0"), (FLOWER, "HGET unacked 1"), (FLOWER, "PUBLISH /0.celeryev/task.succeeded forged"),
    (FLOWER, "DEL celery-task-meta-1"), (FLOWER, "SET celery-task-meta-1 forged"), (FLOWER, "GET tagmill:pairs:1"),
]  # fmt: skip


def test_on_redis_everybody_works_and_nobody_may_do_more(guarded_redis: GuardedRedis) -> None:
    with company_on(guarded_redis.url_of, guarded_redis) as company:
        do_all_work(company)
    refused_at_work = guarded_redis.refusals
    assert refused_at_work == []
    refused = [attempt for attempt in REFUSED_BY_REDIS if is_refused_by_redis(guarded_redis, *attempt)]
    tried = len(REFUSED_BY_REDIS)
    print(f"FIGURE least_rights broker=redis refused={len(refused)}/{tried} acl_log={len(refused_at_work)}")
    assert [attempt for attempt in REFUSED_BY_REDIS if attempt not in refused] == []


def test_on_redis_nobody_is_somebody_without_a_password(guarded_redis: GuardedRedis) -> None:
    with (
        redis.Redis(port=guarded_redis.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.ping()


def is_refused_by_redis(server: GuardedRedis, user: str, command: str) -> bool:
    """Whether the server says so itself; anything else that is wrong with a command is no refusal."""
    with server.client(user) as client, suppress(redis.ResponseError):
        client.execute_command(*command.split())
    return [refusal["username"] for refusal in server.refusals] == [user]


TAGGING: Final = ("tag.tickets", "tag.comments", "tag.bulk")


def take(queue: str) -> Attempt:
    return f"take from {queue}", lambda channel: channel.basic_get(queue)


def empty(queue: str) -> Attempt:
    return f"empty {queue}", lambda channel: channel.queue_purge(queue)


def delete(queue: str) -> Attempt:
    return f"delete {queue}", lambda channel: channel.queue_delete(queue)


def delete_exchange(exchange: str) -> Attempt:
    return f"delete the exchange {exchange}", lambda channel: channel.exchange_delete(exchange)


def make(queue: str) -> Attempt:
    return f"make {queue}", lambda channel: channel.queue_declare(queue)


def copy(queue: str, exchange: str, key: str) -> Attempt:
    return f"have {key} of {exchange} copied to {queue}", lambda channel: channel.queue_bind(queue, exchange, key)


def send(exchange: str, key: str) -> Attempt:
    def attempt(channel: amqp.Channel) -> None:
        channel.basic_publish(amqp.Message("forged"), exchange, key)
        channel.confirm_select()  # waits for an answer, before which a refusal comes

    return f"send to {exchange or 'the default exchange'} as {key}", attempt


REFUSED_BY_RABBITMQ: Final = [
    *((user, attempt) for user in (WORKER, PRODUCER, WRITEBACK, FLOWER) for attempt in (
        make("mine"), send("", "tag.tickets"), send("amq.topic", "x"), take("somebody-elses"),
    )),
    *((user, attempt(queue)) for user in (PRODUCER, WRITEBACK, FLOWER) for queue in TAGGING for attempt in (
        take, empty, delete,
    )),
    *((user, attempt("tag.writeback")) for user in (WORKER, PRODUCER, FLOWER) for attempt in (take, empty, delete)),
    *((user, attempt("tag.dead")) for user in (PRODUCER, WRITEBACK, FLOWER) for attempt in (take, empty, delete)),
    (WRITEBACK, copy("tag.writeback", "tag", "tag.tickets")), (WRITEBACK, copy("tag.writeback", "tag", "#")),
    (WRITEBACK, send("tag", "tag.tickets")),
    (PRODUCER, send("tag.dead", "tag.dead")), (PRODUCER, send("tag", "elsewhere")),
    (PRODUCER, send("celery.pidbox", "")), (PRODUCER, send("celeryev", "task.succeeded")),
    (PRODUCER, delete_exchange("tag")), (PRODUCER, take("w1@tests.celery.pidbox")),
    (FLOWER, send("tag", "tag.tickets")), (FLOWER, send("tag.dead", "")), (FLOWER, send("celeryev", "task.succeeded")),
    (FLOWER, delete_exchange("tag")), (FLOWER, delete("w1@tests.celery.pidbox")),
    (FLOWER, take("w1@tests.celery.pidbox")),
]  # fmt: skip


def test_on_rabbitmq_everybody_works_and_nobody_may_do_more(
    rabbit_server: RabbitServer, guarded_rabbit: Callable[[str], str], guarded_redis: GuardedRedis
) -> None:
    with company_on(guarded_rabbit, guarded_redis) as company:
        do_all_work(company)
    tried = [(user, what) for user, (what, _) in REFUSED_BY_RABBITMQ]
    refused = [
        (user, what)
        for user, (what, attempt) in REFUSED_BY_RABBITMQ
        if is_refused_by_rabbitmq(rabbit_server, user, attempt)
    ]
    # Its log comes late, and in order: when it has all that was tried here, it has what was refused before.
    wait_until("RabbitMQ's log has them all", lambda: len(refusals_of(rabbit_server)) >= len(refused))
    refused_at_work = [*refusals_of(rabbit_server)[: -len(refused)], *guarded_redis.refusals]
    print(f"FIGURE least_rights broker=rabbitmq refused={len(refused)}/{len(tried)} acl_log={len(refused_at_work)}")
    assert refused_at_work == []
    assert [attempt for attempt in tried if attempt not in refused] == []


def refusals_of(server: RabbitServer) -> list[str]:
    """What RabbitMQ says in its log that it refused to the page's users."""
    return [line for line in server.log.read_text().splitlines() if "refused" in line and "tagmill-" in line]


def is_refused_by_rabbitmq(server: RabbitServer, user: str, attempt: Callable[[amqp.Channel], object]) -> bool:
    with (
        amqp.Connection(f"{HOST}:{server.port}", userid=user, password=PASSWORD, virtual_host="tagmill") as connection,
        connection.channel() as channel,
    ):
        try:
            attempt(channel)
        except AccessRefused:
            return True
    return False
