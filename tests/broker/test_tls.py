"""A broker that speaks TLS carries messages both ways, and one that cannot show who it is gets none."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from producers.publisher import Publisher
from tagging.errors import BrokerUnreachable
from tagging.names import TAG_TICKET
from tests.broker.sites import ANSWER_S, LABELS, Broker, Site
from tests.children import need
from tests.processes import Worker
from tests.servers import HOST, RabbitServer, RedisServer, free_port, launched, server_folder

OTHER_NAME = "rabbit.test"
"""Resolves to nothing."""


class TlsRedis(RedisServer):
    """A Redis whose only port speaks TLS, with a certificate that its own authority signed."""

    @property
    def url(self) -> str:
        return self.trusting(self.folder / "ca.crt")

    def trusting(self, authority: Path) -> str:
        """Its URL for a client that trusts this authority."""
        return f"rediss://{HOST}:{self.port}/0?ssl_cert_reqs=required&ssl_ca_certs={authority}"

    def prepare(self) -> None:
        make_certificate(self.folder, f"IP:{HOST}")

    def command(self) -> list[str | Path]:
        files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"]
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *files]

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


class TlsRabbit(RabbitServer):
    """A RabbitMQ with a second port that speaks TLS, with a certificate for its address and for another name."""

    def __init__(self, folder: Path) -> None:
        self.tls_port = free_port()
        files = ("cacertfile", "ca.crt"), ("certfile", "server.crt"), ("keyfile", "server.key")
        super().__init__(
            folder,
            options=[
                f"listeners.ssl.default = {HOST}:{self.tls_port}",
                *(f"ssl_options.{name} = {folder}/{file}" for name, file in files),
            ],
        )

    def prepare(self) -> None:
        make_certificate(self.folder, f"IP:{HOST},DNS:{OTHER_NAME}")
        super().prepare()

    def at(self, host: str) -> str:
        """Its URL by this name of this machine."""
        return f"amqps://guest:guest@{host}:{self.tls_port}//"


@pytest.fixture
def tls_redis() -> Iterator[TlsRedis]:
    need("openssl")
    with launched(TlsRedis) as server:
        yield server


@pytest.fixture
def tls_site(tls_redis: TlsRedis, redis_server: RedisServer) -> Iterator[Site]:
    """A site whose queues are behind TLS."""
    with server_folder("site") as folder:
        environ = {
            "TAGMILL_BROKER__URL": tls_redis.url,
            "TAGMILL_RESULTS__URL": redis_server.url,
            "TAGMILL_CACHE__URL": "",
            "TAGMILL_LEDGER__URL": f"sqlite:///{folder}/ledger.db",
            "TAGMILL_MODEL__NAME": "fake",
        }
        with closing(Site(broker=Broker("redis", redis_server, None), folder=folder, environ=environ)) as site:
            yield site


@pytest.fixture(scope="module")
def tls_rabbit() -> Iterator[TlsRabbit]:
    need("openssl")
    with launched(TlsRabbit) as server:
        yield server


@pytest.fixture
def rabbit_site(tls_rabbit: TlsRabbit, redis_server: RedisServer) -> Iterator[Callable[..., Site]]:
    """Makes a site whose queues are on the RabbitMQ behind TLS, found by this name of it."""
    with server_folder("site") as folder, ExitStack() as sites:

        def site(host: str, **broker: str) -> Site:
            environ = {
                "TAGMILL_BROKER__URL": tls_rabbit.at(host),
                "TAGMILL_BROKER__TLS_CA_FILE": f"{tls_rabbit.folder}/ca.crt",
                **{f"TAGMILL_BROKER__{name.upper()}": value for name, value in broker.items()},
                "TAGMILL_RESULTS__URL": redis_server.url,
                "TAGMILL_CACHE__URL": "",
                "TAGMILL_LEDGER__URL": f"sqlite:///{folder}/ledger.db",
                "TAGMILL_MODEL__NAME": "fake",
            }
            made = Site(broker=Broker("rabbitmq", redis_server, tls_rabbit), folder=folder, environ=environ)
            return sites.enter_context(closing(made))

        yield site


def test_messages_travel_through_tls(tls_site: Site) -> None:
    with tls_site.worker().running() as worker:
        assert [tls_site.send().get(timeout=ANSWER_S)["decision"] for _ in range(3)]
        assert worker.stop() == 0


def test_a_redis_of_another_authority_gets_no_worker(tls_site: Site, tls_redis: TlsRedis, tmp_path: Path) -> None:
    make_authority(tmp_path / "other")
    tls_site.environ["TAGMILL_BROKER__URL"] = tls_redis.trusting(tmp_path / "other.crt")
    assert_ends(tls_site.worker(), "CERTIFICATE_VERIFY_FAILED")


def test_a_redis_whose_certificate_is_for_another_name_gets_no_worker(tls_site: Site, tls_redis: TlsRedis) -> None:
    tls_site.environ["TAGMILL_BROKER__URL"] = tls_redis.url.replace(HOST, "localhost")
    assert_ends(tls_site.worker(), "Hostname mismatch")


@pytest.mark.parametrize(
    ("host", "broker"),
    [(HOST, {}), ("localhost", {"tls_server_name": OTHER_NAME})],
    ids=["its own name", "another name that is expected"],
)
def test_messages_travel_through_tls_to_rabbitmq(
    rabbit_site: Callable[..., Site], host: str, broker: dict[str, str]
) -> None:
    site = rabbit_site(host, **broker)
    with site.worker().running() as worker:
        assert site.send().get(timeout=ANSWER_S)["decision"]
        assert worker.stop() == 0


def test_a_rabbitmq_whose_certificate_is_for_another_name_gets_no_message(rabbit_site: Callable[..., Site]) -> None:
    site = rabbit_site("localhost")
    with closing(Publisher(site.settings)) as publisher, pytest.raises(BrokerUnreachable, match="Hostname mismatch"):
        publisher.publish(TAG_TICKET, {"text": "a text", "labels": list(LABELS)})


def test_a_rabbitmq_whose_certificate_is_for_another_name_gets_no_worker(rabbit_site: Callable[..., Site]) -> None:
    assert_ends(rabbit_site("localhost").worker(), "Hostname mismatch")


def assert_ends(worker: Worker, cause: str) -> None:
    """The worker refuses to start and says why."""
    worker.launch()
    try:
        assert worker.wait() != 0
        assert cause in worker.text
    finally:
        worker.kill()


def make_certificate(folder: Path, names: str) -> None:
    """An authority, and what a server shows that bears these names: ca.crt, server.crt and server.key in the folder."""
    make_authority(folder / "ca")
    request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server", "-keyout", "server.key"]
    openssl(*request, "-out", "server.csr", cwd=folder)
    (folder / "names").write_text(f"subjectAltName={names}\n")
    sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1"]
    openssl(*sign, "-extfile", "names", "-out", "server.crt", cwd=folder)


def make_authority(at: Path) -> None:
    """An authority for certificates: ``at`` with .crt and .key."""
    names = ["-keyout", f"{at.name}.key", "-out", f"{at.name}.crt", "-subj", f"/CN={at.name}"]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, cwd=at.parent)


def openssl(*words: str, cwd: Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=cwd)
