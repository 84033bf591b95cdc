"""A Redis that speaks TLS only carries messages both ways, and one that cannot show who it is gets none."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.broker.sites import ANSWER_S, Broker, Site
from tests.children import need
from tests.servers import HOST, RedisServer, launched, server_folder


class TlsRedis(RedisServer):
    """A Redis whose only port speaks TLS, with a certificate that its own authority signed."""

    @property
    def url(self) -> str:
        return self.trusting(self.folder / "ca.crt")

    def trusting(self, authority: Path) -> str:
        """Its URL for a client that trusts this authority."""
        return f"rediss://{HOST}:{self.port}/0?ssl_cert_reqs=required&ssl_ca_certs={authority}"

    def prepare(self) -> None:
        make_authority(self.folder / "ca")
        request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}", "-keyout", "server.key"]
        openssl(*request, "-out", "server.csr", cwd=self.folder)
        (self.folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
        sign = [
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "1",
        ]
        openssl(*sign, "-extfile", "names", "-out", "server.crt", cwd=self.folder)

    def command(self) -> list[str | Path]:
        files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"]
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *files]

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


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


def test_messages_travel_through_tls(tls_site: Site) -> None:
    with tls_site.worker().running() as worker:
        assert [tls_site.send().get(timeout=ANSWER_S)["decision"] for _ in range(3)]
        assert worker.stop() == 0


def test_a_server_of_another_authority_is_not_talked_to(tls_site: Site, tls_redis: TlsRedis, tmp_path: Path) -> None:
    make_authority(tmp_path / "other")
    tls_site.environ["TAGMILL_BROKER__URL"] = tls_redis.trusting(tmp_path / "other.crt")
    worker = tls_site.worker()
    worker.launch()
    try:
        assert worker.wait() != 0
        assert "CERTIFICATE_VERIFY_FAILED" in worker.text
    finally:
        worker.kill()


def make_authority(at: Path) -> None:
    """An authority for certificates: ``at`` with .crt and .key."""
    names = ["-keyout", f"{at.name}.key", "-out", f"{at.name}.crt", "-subj", f"/CN={at.name}"]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, cwd=at.parent)


def openssl(*words: str, cwd: Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=cwd)
