"""``tagmill relay``: publish what was accepted, until SIGTERM."""

import signal
from threading import Event

import click


@click.command()
def command() -> None:
    """Publish what the intake has accepted, until SIGTERM.

    Publishes again what was published and not finished for intake.sweep_after_s, and removes what is older than
    ledger.keep_text_days, keep_done_days and keep_dead_days. Any number may run. A broker or a ledger that goes away is
    waited for.
    """
    from ledger.retention import Keep, forget
    from producers.publisher import Publisher
    from producers.relay import Relay
    from tagging import logs
    from tagging.settings import load
    from tagmill.ledgers import open_ledgers

    settings = load().settings
    logs.configure(settings.log.level)
    keep = Keep(
        text_days=settings.ledger.keep_text_days,
        done_days=settings.ledger.keep_done_days,
        dead_days=settings.ledger.keep_dead_days,
    )
    publisher = Publisher(settings)
    with open_ledgers(settings) as ledgers:
        relay = Relay(
            intake=ledgers.intake,
            broker=publisher,
            settings=settings.intake,
            forget=lambda now: forget(ledgers.database, keep, now=now),
        )
        relay.run(_told_to_stop())
    publisher.close()


def _told_to_stop() -> Event:
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
