"""The accounts that this deployment is connected to: ``config/accounts.toml``, one table each, secrets elsewhere.

    [shop]
    system = "zendesk"
    base_url = "https://shop.zendesk.com"
    secrets = ["env:SHOP_WEBHOOK_SECRET"]       # several while one is being replaced
    token = "env:SHOP_TOKEN"
    label_sets = ["intent", "sentiment"]

    [shop.write_back.intent]                    # none: tags stay with us
    mode = "apply"
    top_k = 2

An account's name is the ``{name}`` of ``/hooks/{system}/{name}``, the ``source`` of its documents and the ``system``
of a message's ``write_back``. Values that are secret are given as ``env:VARIABLE`` or ``file:/path``.
"""

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo

from tagging.errors import SettingsError
from tagging.labels import Share
from tagging.mistakes import expected
from tagging.names import Kind

ACCOUNTS_FILE: Final = "accounts.toml"
_SECRETS: Final = ("secrets", "token")


def _secret(value: object, info: ValidationInfo) -> SecretStr:
    """The secret that ``env:VARIABLE`` or ``file:/path`` points to."""
    source, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    match source:
        case "env":
            environ: Mapping[str, str] = info.context or {}
            if not environ.get(name):
                raise ValueError(f"the environment variable {name} is not set")
            return SecretStr(environ[name])
        case "file":
            try:
                return SecretStr(Path(name).read_text(encoding="utf-8").strip())
            except (OSError, UnicodeDecodeError) as e:
                raise ValueError(f"{name} cannot be read: {e.__class__.__name__}") from None
        case _:
            raise ValueError("a secret does not stand here; say env:VARIABLE or file:/path")


Secret = Annotated[SecretStr, BeforeValidator(_secret)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class WriteBackPolicy(_Table):
    """What becomes of the tags of one label set."""

    mode: Literal["apply", "suggest"] = "suggest"
    """``apply``: tags that scored high enough are set, others suggested. ``suggest``: agents get a note only."""
    top_k: int = Field(3, ge=1, le=100, description="At most so many tags of one answer.")
    thresholds: dict[str, Share] = {}
    """Label to the score from which it is applied, where that differs from the label set's."""
    replace_own: bool = Field(
        False, description="A tag that we set for an older revision and that no longer holds is taken off again."
    )
    only_existing: bool = Field(True, description="Tags that the system does not know are left out.")


class Account(_Table):
    """One connected account of one ticketing system."""

    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    system: str = Field(description="Name of a module of `integrations`.")
    base_url: str = Field("", description="Where its API is; no address ever comes from a message or a webhook.")
    allow_private: bool = Field(False, description="The address may be inside our own network.")
    secrets: tuple[Secret, ...] = Field((), description="Any of them verifies a webhook.")
    token: Secret | None = None
    kinds: tuple[Kind, ...] = ("ticket", "comment")
    label_sets: tuple[str, ...] = Field(min_length=1)
    write_back: dict[str, WriteBackPolicy] = Field({}, description="By label set.")
    max_per_minute: int = Field(60, ge=1, description="Calls to the system.")
    options: dict[str, Any] = Field({}, description="The system's own; its module describes them.")


class Accounts(Mapping[str, Account]):
    """The accounts by name."""

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = dict(accounts)

    def __getitem__(self, name: str) -> Account:
        return self._accounts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._accounts)

    def __len__(self) -> int:
        return len(self._accounts)

    @classmethod
    def load(cls, config_dir: Path, *, environ: Mapping[str, str] | None = None) -> "Accounts":
        """The accounts of ``accounts.toml`` in this folder; none where there is no such file.

        Raises:
            SettingsError: Names every account that is wrong, and why, without its secrets.
        """
        path = config_dir / ACCOUNTS_FILE
        return cls(_read(_tables(path), path, os.environ if environ is None else environ))

    @classmethod
    def without_secrets(cls, config_dir: Path) -> "Accounts":
        """The same for a process that calls nobody, and so needs not have the secrets.

        Raises:
            SettingsError: Names every account that is wrong, and why.
        """
        path = config_dir / ACCOUNTS_FILE
        open_ = {
            name: {key: value for key, value in table.items() if key not in _SECRETS}
            if isinstance(table, dict) else table
            for name, table in _tables(path).items()
        }  # fmt: skip
        return cls(_read(open_, path, {}))


def refuse_unknown(account: Account, label_sets: Collection[str]) -> None:
    """Return if these label sets are all that the account names.

    Raises:
        SettingsError: Names those that do not exist, and those that do.
    """
    named = dict.fromkeys((*account.label_sets, *account.write_back))
    if unknown := [name for name in named if name not in label_sets]:
        known = ", ".join(sorted(label_sets)) or "none"
        raise SettingsError([f"{account.name}: no label set {', '.join(map(repr, unknown))}; there are: {known}"])


def _tables(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SettingsError([f"{path}: {e}"]) from None


def _read(tables: Mapping[str, Any], path: Path, environ: Mapping[str, str]) -> dict[str, Account]:
    accounts, problems = {}, []
    for name, table in tables.items():
        if not isinstance(table, dict):
            problems.append(f"{path}: {name!r} stands outside a table; begin with [account-name]")
            continue
        try:
            accounts[name] = Account.model_validate({**table, "name": name}, context=environ)
        except ValidationError as e:
            problems += [
                f"{path}: {name}.{_where(p['loc'])}: {expected(p, of=Account)}" for p in e.errors(include_input=False)
            ]
    if problems:
        raise SettingsError(problems)
    return accounts


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))
