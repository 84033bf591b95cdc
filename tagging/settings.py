"""Settings: ``config/app.toml``, overridden by ``TAGMILL_*`` environment variables, typed, frozen and checked together.

``TAGMILL_BROKER__URL`` is ``url`` in the section ``[broker]``. ``load`` reports every problem at once, each with its
remedy, and remembers where each value came from (``tagmill config show``).
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tagging.disagreements import disagreements
from tagging.errors import SettingsError
from tagging.labels import Policy, Share
from tagging.messages import MAX_ITEMS, MAX_LABELS, MAX_TEXT_CHARS, Limits
from tagging.mistakes import did_you_mean, expected
from tagging.urls import REDIS_SCHEMES, SENTINEL, mask_url

ENV_PREFIX: Final = "TAGMILL_"
CONFIG_DIR_VARIABLE: Final = "TAGMILL_CONFIG_DIR"
Unsafe = Literal["eviction", "no-aof", "classic-queue"]
"""What a broker may be allowed to be by its name, though it may lose messages: ``workers.refusals`` explains each."""
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerSettings(_Section):
    """Where messages come from."""

    url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="redis://, rediss://, amqp:// or amqps://. Of several hosts: amqp://a;amqp://b, and those of "
        "Sentinel as sentinel://a:26379;sentinel://b:26379",
    )
    sentinel_master: str = Field(
        "", description="Sentinel: the name of the Redis that it watches, for sentinel:// only."
    )
    prefetch: int = Field(
        0, ge=0, description="Messages fetched ahead of the device; 0 means 3 x batching.max_messages."
    )
    visibility_timeout_s: int = Field(
        60, ge=10, description="Redis: so long after a worker's last sign of life its messages come back."
    )
    allow_unsafe: tuple[Unsafe, ...] = Field(
        (), description="Start on a broker that may lose messages: eviction, no-aof, classic-queue."
    )
    heartbeat_s: int = Field(10, ge=0, description="RabbitMQ: seconds between heartbeats.")
    tls_ca_file: str = Field(
        "", description="amqps://: file of the authorities that are trusted. Empty: those of the system."
    )
    tls_server_name: str = Field(
        "", description="amqps://: the name that the certificate must bear. Empty: the host in broker.url."
    )


class ResultsSettings(_Section):
    """Where Celery's results go."""

    url: str = "redis://127.0.0.1:6379/1"
    expires_s: int = Field(86_400, ge=60)


class CacheSettings(_Section):
    """Pairs of a minute ago: what the model answered, by text and hypothesis."""

    url: str = Field("redis://127.0.0.1:6379/1", description="Empty: only the worker's own memory is used.")
    ttl_s: int = Field(3600, ge=1, description="Seconds for which a text's pairs are kept after the last was written.")
    local_entries: int = Field(100_000, ge=0, description="Pairs in the worker's own memory.")
    timeout_ms: int = Field(50, ge=1)
    single_flight_wait_ms: int = Field(
        250, ge=0, description="How long pairs that another worker is computing are waited for; 0: computed here too."
    )
    pepper: SecretStr = Field(SecretStr(""), description="Keys the digests, so that short texts cannot be guessed.")


class LedgerSettings(_Section):
    """The database of the intake, of tags that stand and of dead letters."""

    url: str = Field("sqlite:///tagmill.db", description="sqlite:///file or postgresql://")
    keep_text_days: float = Field(7.0, ge=0, description="Texts of messages that are done; tags never hold one.")
    keep_done_days: float = Field(30.0, ge=0, description="The intake's rows of messages that are done.")
    keep_dead_days: float = Field(90.0, ge=0, description="Dead letters with their texts.")


class IntakeSettings(_Section):
    """How what was accepted gets to the queue: ``tagmill relay``."""

    poll_ms: int = Field(200, ge=10, description="How often a relay looks for what was accepted.")
    batch: int = Field(256, ge=1, le=5000, description="Messages that a relay claims and publishes at a time.")
    claim_s: float = Field(60.0, gt=0, description="After this another relay publishes what was claimed and is not.")
    sweep_after_s: float = Field(
        900.0, gt=0, description="What was published so long ago and is not finished may be published again."
    )
    sweep_batch: int = Field(256, ge=1, le=5000, description="Messages that one sweep publishes again at most.")
    max_publishes: int = Field(5, ge=1, description="Published so often and never finished, a message is parked.")
    backoff_s: float = Field(1.0, gt=0, description="First pause after the broker or the ledger was lost; it doubles.")
    backoff_max_s: float = Field(30.0, gt=0)


class BackfillSettings(_Section):
    """How much a bulk backfill does at a time, and when it gives way: ``tagmill backfill``."""

    jobs_dir: Path = Field(Path(".tagmill/jobs"), description="Folder of the job files; they hold customers' texts.")
    window_rows: int = Field(4096, ge=1, description="Rows that are read, deduplicated and sorted together.")
    chunk_items: int = Field(256, ge=1, le=MAX_ITEMS, description="Texts of a message at most.")
    chunk_tokens: int = Field(
        32_768, ge=1, description="Tokens of a message at most, padded and for all labels, a character counted as one."
    )
    in_flight: int = Field(8, ge=1, description="Messages that are sent and not answered.")
    live_waiting_high: int = Field(200, ge=0, description="So many live messages waiting hold a backfill, until")
    live_waiting_low: int = Field(20, ge=0, description="no more than so many wait.")
    live_age_s: float = Field(5.0, gt=0, description="A live message that takes so long holds it as well.")
    patience_s: float = Field(300.0, ge=0, description="A broker or ledger lost for so long ends the command.")


class ModelSettings(_Section):
    """What answers."""

    name: str = Field("demo", description="A name in config/models.toml, a checkpoint's folder, or `fake`.")
    precision: Precision = Field("auto", description="auto: float16 on CUDA, float32 on CPU.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    max_tokens_per_pass: int = Field(
        0, ge=0, description="Padded tokens that the device computes at once; 0: by device."
    )
    max_length: int = Field(0, ge=0, description="Tokens where a pair is cut; 0: as many as the model reads.")
    backend: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="What computes; auto: OpenVINO on a CPU, torch on a GPU."
    )
    attention: Literal["auto", "packed", "padded"] = Field(
        "auto", description="packed: no padding is computed; auto: packed where the device has kernels for it."
    )
    cuda_graphs: bool = Field(True, description="GPU, padded attention: small passes are recorded once and replayed.")
    max_memory_mb: int = Field(0, ge=0, description="GPU memory that the engine may take; 0: all there is.")
    offload: Literal["none", "layers"] = Field(
        "none", description="layers: a GPU smaller than the model; layers stay in the machine's memory and visit it."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the engine; 0: as many as the cores it may use.")
    cache_dir: str = Field("~/.cache/tagmill", description="Converted and downloaded checkpoints.")
    protect_special_tokens: bool = Field(
        True, description="A text's own [SEP] or [MASK] stays text. False: as ModelScope, where it becomes the token."
    )
    self_test: bool = Field(True, description="Refuse to serve a model that fails an obvious pair.")
    isolate: bool = Field(True, description="Run the engine in a process of its own.")
    timeout_s: float = Field(120.0, gt=0, description="A device call that takes longer is ended.")


class BatchingSettings(_Section):
    """When a batch leaves for the device."""

    max_messages: int = Field(64, ge=1)
    max_tokens: int = Field(32_768, ge=512, description="Padded tokens of a batch's pairs, estimated.")
    max_wait_ms: float = Field(10.0, ge=0)
    bulk_turn_ms: float = Field(
        20.0, gt=0, description="Bulk work lets live work go first each time it has had the device for so long."
    )
    bulk_every: int = Field(
        8, ge=1, description="Where both wait, one turn on the device in so many is bulk's, so that it never starves."
    )
    drain_s: float = Field(25.0, ge=0, description="A graceful stop finishes what was fetched, for at most this long.")


class LabelsSettings(_Section):
    """Which labels may be asked."""

    max_per_request: int = Field(MAX_LABELS, ge=1, le=1000)
    max_per_set: int = Field(100, ge=1, le=1000)
    apply_at: Share = 0.5
    suggest_at: Share = 0.3


class TextsSettings(_Section):
    """Which texts may be asked about."""

    max_chars: int = Field(MAX_TEXT_CHARS, ge=1)
    max_items: int = Field(MAX_ITEMS, ge=1, description="Texts in one tag_many.")


class RetriesSettings(_Section):
    """What happens when the device fails through no fault of the message."""

    max_attempts: int = Field(4, ge=1)
    backoff_s: float = Field(2.0, gt=0)
    backoff_max_s: float = Field(60.0, gt=0)


class WorkerSettings(_Section):
    """When a worker's process is ended or started again."""

    loop_timeout_s: float = Field(
        60.0, ge=0, description="A worker whose loop stands still for so long ends itself, to be started again; 0: off."
    )
    max_memory_mb: int = Field(
        0, ge=0, description="A worker that takes more, its engine included, finishes and ends; 0: no ceiling."
    )
    max_dead_in_a_row: int = Field(
        100, ge=0, description="A worker that parks so many messages and tags none between them ends itself; 0: off."
    )
    max_crashes: int = Field(
        5, ge=1, description="`--devices`: so many crashes of one worker within crash_window_s end the supervisor."
    )
    crash_window_s: float = Field(600.0, gt=0, description="`--devices`: how long a crash is remembered.")


class HttpSettings(_Section):
    """``tagmill serve``."""

    address: str = "127.0.0.1"
    port: int = Field(8780, ge=1, le=65535)
    access: Literal["keys", "none"] = Field(
        "keys", description="none: whoever reaches the port may do everything; for development, on loopback only."
    )
    wait_s: float = Field(10.0, ge=0, le=300, description="POST /v1/tags waits so long for the answer.")
    max_body_kb: int = Field(1024, ge=1, description="A longer body is refused before it is read.")
    receive_s: float = Field(10.0, gt=0, description="A request has to be here whole within this time.")
    max_unfinished: int = Field(10_000, ge=1, description="While more is accepted and not finished, callers get 429.")
    max_age_s: float = Field(300.0, gt=0, description="The same while the oldest of it is so old.")


class WriteBackSettings(_Section):
    """``tagmill writeback run``."""

    threads: int = Field(4, ge=1, le=64, description="Write-backs that one worker carries out at a time.")
    max_attempts: int = Field(20, ge=1, description="Calls in vain after which a write-back is parked.")
    backoff_s: float = Field(5.0, gt=0, description="First pause after a call in vain; it doubles.")
    backoff_max_s: float = Field(600.0, gt=0)
    breaker_failures: int = Field(5, ge=1, description="So many calls in vain in a row, and an account is left alone.")
    breaker_pause_s: float = Field(30.0, gt=0, description="For how long, until one call tries it again.")


class FlowerSettings(_Section):
    """``tagmill flower``."""

    address: str = "127.0.0.1"
    port: int = Field(5555, ge=1, le=65535)
    user: str = "tagmill"
    password: SecretStr = Field(SecretStr(""), description="Empty: one is made at each start and printed.")
    read_only: bool = True


class LogSettings(_Section):
    """Log events on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsSettings(_Section):
    """What a worker tells Prometheus."""

    port: int = Field(0, ge=0, le=65535, description="0: none. Workers of --devices take this and those after it.")
    address: str = Field("127.0.0.1", description="There is no password: let only the scraper reach it.")


class Settings(BaseSettings):
    """Everything that a process of Tagmill can be told."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    broker: BrokerSettings = BrokerSettings()
    results: ResultsSettings = ResultsSettings()
    cache: CacheSettings = CacheSettings()
    ledger: LedgerSettings = LedgerSettings()
    intake: IntakeSettings = IntakeSettings()
    backfill: BackfillSettings = BackfillSettings()
    model: ModelSettings = ModelSettings()
    batching: BatchingSettings = BatchingSettings()
    labels: LabelsSettings = LabelsSettings()
    texts: TextsSettings = TextsSettings()
    retries: RetriesSettings = RetriesSettings()
    worker: WorkerSettings = WorkerSettings()
    http: HttpSettings = HttpSettings()
    writeback: WriteBackSettings = WriteBackSettings()
    flower: FlowerSettings = FlowerSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the library's signature, here and below
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing is read behind anybody's back; ``load`` asks the file and the environment itself."""
        return (init_settings,)

    @property
    def prefetch(self) -> int:
        """Messages fetched ahead: the one set, or enough for a batch running, one ready and one growing."""
        return self.broker.prefetch or 3 * self.batching.max_messages

    @property
    def stop_s(self) -> float:
        """How long a graceful stop may take: the drain, then writing what it gave and ending the engine."""
        return self.batching.drain_s + 20

    @property
    def longest_hold_s(self) -> float:
        """How long a worker may hold a message: it drains, while a pass runs and one waits."""
        return self.batching.drain_s + 2 * self.model.timeout_s

    @property
    def limits(self) -> Limits:
        """The message limits of this deployment."""
        return Limits(
            max_labels=self.labels.max_per_request,
            max_text_chars=self.texts.max_chars,
            max_items=self.texts.max_items,
        )

    @property
    def policy(self) -> Policy:
        """When a score becomes a tag, for labels that come with the message."""
        return Policy(apply_at=self.labels.apply_at, suggest_at=self.labels.suggest_at)

    @property
    def cache_can_be_guessed(self) -> bool:
        """Whether others may read the cache's keys, and could find a short text by trying."""
        host = urlsplit(self.cache.url).hostname
        return host not in (None, "localhost", "127.0.0.1", "::1") and not self.cache.pepper.get_secret_value()

    @property
    def uses_redis_broker(self) -> bool:
        """Whether messages travel through Redis rather than RabbitMQ."""
        return urlsplit(self.broker.url).scheme in (*REDIS_SCHEMES, SENTINEL)

    @property
    def uses_sentinel(self) -> bool:
        """Whether it is Sentinel that says which Redis they travel through."""
        return urlsplit(self.broker.url).scheme == SENTINEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, where each value came from, and the folder that was read."""

    settings: Settings
    origins: Mapping[str, str]
    """``broker.url`` to ``default``, the file's path, or the variable's name."""
    config_dir: Path


def load(*, environ: Mapping[str, str] | None = None, config_dir: Path | None = None) -> Loaded:
    """The settings of this process.

    Args:
        environ: Environment; this process's by default.
        config_dir: Folder of ``app.toml``; by default ``TAGMILL_CONFIG_DIR``, ``./config``, or the one beside the code.

    Raises:
        SettingsError: Holds every problem, each with its remedy.
    """
    environ = os.environ if environ is None else environ
    folder = config_dir or find_config_dir(environ)
    path = folder / "app.toml"
    problems = list(_unknown_variables(environ))
    from_file = _read_toml(path, problems)
    from_env = _read_environ(environ)
    settings, wrong = _validate(_merge(from_file, from_env), from_env, path, problems)
    # About one that is wrong by itself nothing more can be said.
    problems += [told for told in disagreements(settings) if not any(name in told for name in wrong)]
    if problems:
        raise SettingsError(problems)
    origins = {name: _origin(name, from_env, from_file, path) for name, _ in leaves(settings)}
    return Loaded(settings=settings, origins=origins, config_dir=folder)


def find_config_dir(environ: Mapping[str, str]) -> Path:
    """Where the configuration lies: the variable, the working folder, or beside the code."""
    if given := environ.get(CONFIG_DIR_VARIABLE):
        return Path(given)
    local = Path("config")
    return local.resolve() if (local / "app.toml").is_file() else Path(__file__).resolve().parent.parent / "config"


def leaves(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Each setting's dotted name and value."""
    for section in type(settings).model_fields:
        values = getattr(settings, section)
        for name in type(values).model_fields:
            yield f"{section}.{name}", getattr(values, name)


def masked(value: object) -> str:
    """The value as it may be shown: secrets and passwords in URLs become stars."""
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    text = str(value)
    return mask_url(text) if "://" in text else text


def _read_toml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        raw = TomlConfigSettingsSource(Settings, toml_file=path)()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        problems.append(f"{path}: {e}")
        return {}
    sections = {name: values for name, values in raw.items() if isinstance(values, dict)}
    problems += [f"{path}: {name!r} stands outside a section" for name in raw.keys() - sections.keys()]
    return sections


def _read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(Settings, env_prefix=ENV_PREFIX, env_nested_delimiter="__")
    known = _known_variables()
    source.env_vars = {variable.lower(): value for variable, value in environ.items() if variable in known}
    return source()


def _merge(from_file: Mapping[str, Any], from_env: Mapping[str, Any]) -> dict[str, Any]:
    return {**from_file, **{section: {**from_file.get(section, {}), **values} for section, values in from_env.items()}}


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = _known_variables()
    with_one_underscore = {variable.replace("__", "_"): variable for variable in known}
    for variable in environ:
        if variable in with_one_underscore:
            yield f"{variable}: two underscores end the section's name: {with_one_underscore[variable]}"
        elif variable.startswith(ENV_PREFIX) and "__" in variable and variable not in known:
            name = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")
            near = did_you_mean(variable, known)
            yield f"{variable}: there is no setting {name}{near or '; `tagmill config show` lists them'}"


def _known_variables() -> set[str]:
    return {_variable(name) for name, _ in leaves(Settings())}


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper().replace(".", "__")


def _origin(name: str, from_env: Mapping[str, Any], from_file: Mapping[str, Any], path: Path) -> str:
    if _has(from_env, name):
        return _variable(name)
    return str(path) if _has(from_file, name) else "default"


def _validate(
    values: dict[str, Any], from_env: Mapping[str, Any], path: Path, problems: list[str]
) -> tuple[Settings, set[str]]:
    """The settings, with defaults where a value is wrong, and the names of these."""
    try:
        return Settings.model_validate(values), set()
    except ValidationError as e:
        wrong = e.errors(include_input=False, include_url=False)
    for problem in wrong:
        name = ".".join(str(part) for part in problem["loc"])
        where = _variable(name) if _has(from_env, name) else str(path)
        problems.append(f"{name}: {_text_of(problem, name)} (in {where})")
    names = {".".join(map(str, problem["loc"][:2])) for problem in wrong}
    right = {
        section: {key: value for key, value in keys.items() if f"{section}.{key}" not in names}
        for section, keys in values.items()
        if section not in names
    }
    return Settings.model_validate(right), names


def _text_of(problem: ErrorDetails, name: str) -> str:
    if problem["type"] != "extra_forbidden":
        return expected(problem, of=Settings)
    known = [name for name, _ in leaves(Settings())] if "." in name else list(Settings.model_fields)
    return f"there is no such setting{did_you_mean(name, known)}"


def _has(sections: Mapping[str, Any], name: str) -> bool:
    section, _, key = name.partition(".")
    values = sections.get(section, {})
    return isinstance(values, Mapping) and key in values
