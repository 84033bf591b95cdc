"""``tagmill flower``: start Flower for these queues."""

import ipaddress
import secrets
from collections.abc import Iterator

import click
import structlog

from tagging import logs
from tagging.errors import SettingsError, TagmillError
from tagging.settings import FlowerSettings, load

log = structlog.get_logger()


@click.command()
@click.option("--address", default="", help="Address to listen on. Default: flower.address, the loopback.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: flower.port.")
def command(address: str, port: int | None) -> None:
    """Start Flower for these queues, behind a password and unable to change anything, until SIGTERM.

    The password is flower.password (TAGMILL_FLOWER__PASSWORD); where it is empty one is made and printed. Beyond the
    loopback it has to be set. /metrics and /healthcheck answer anyone, in Flower of any configuration.
    """
    settings = load().settings
    given = settings.flower
    changes = {"address": address or given.address, "port": port or given.port}
    flower = given.model_copy(update=changes)
    if problems := list(_problems(flower)):
        raise SettingsError(problems)
    try:
        from tagmill.monitor import Door, serve
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] not in ("flower", "tornado"):
            raise
        raise TagmillError("Flower is not installed here: pip install -e '.[flower]' in the checkout") from e
    from producers.app import make_app

    logs.configure(settings.log.level)
    password = flower.password.get_secret_value() or _new_password(flower.user)
    log.info("flower.starting", address=flower.address, port=flower.port, read_only=flower.read_only)
    door = Door(
        address=flower.address, port=flower.port, user=flower.user, password=password, read_only=flower.read_only
    )
    try:
        serve(make_app(settings), door)
    except OSError as e:
        raise TagmillError(f"cannot listen on {flower.address}:{flower.port}: {e.strerror or e}") from e


def _problems(flower: FlowerSettings) -> Iterator[str]:
    password = flower.password.get_secret_value()
    if not password and not _is_loopback(flower.address):
        yield (
            f"flower.address is {flower.address!r}, beyond this machine, but flower.password is empty.\n"
            "    Set TAGMILL_FLOWER__PASSWORD, or flower.address to 127.0.0.1."
        )
    if not (flower.user + password).isascii() or ":" in flower.user:
        yield "flower.user and flower.password: Flower compares ASCII only, and a user without a colon; choose others"


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _new_password(user: str) -> str:
    password = secrets.token_urlsafe(12)
    click.echo(
        f"user {user}, password {password} (this start only; set TAGMILL_FLOWER__PASSWORD to keep one)", err=True
    )
    return password
