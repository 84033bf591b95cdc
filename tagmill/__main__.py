"""``tagmill``: one command for producers, operators and analysts.

Exit codes: 0 done, 1 partly or wholly failed, 2 wrong usage or settings, 3 broker unreachable.
"""

import importlib
import sys
from typing import Final

import click

from tagging import __version__
from tagging.errors import BrokerUnreachable, SettingsError, TagmillError

COMMANDS: Final = {
    "demo": "Tag the sample tickets and comments with a real queue and worker, then clean up.",
    "up": "Run a broker and a worker until Ctrl-C.",
    "worker": "Take messages off the queues and tag them.",
    "enqueue": "Accept texts, put them on the queue and print their ids.",
    "serve": "Accept texts over HTTP, and answer with their tags.",
    "keys": "Make, list and revoke keys of the HTTP API.",
    "backfill": "Tag every row of a file; pause, resume, undo.",
    "relay": "Publish what was accepted; run one beside the workers.",
    "writeback": "Put tags where agents look, list those that are ours, take them back.",
    "status": "Say what became of an id or a reference, or how full the intake is.",
    "classify": "Score texts without a broker.",
    "check": "Look at settings, broker, stores, device and model.",
    "dead": "List, show, requeue or drop what could not be done.",
    "erase": "Remove a document everywhere, for good.",
    "config": "Show the settings and where each came from.",
    "labels": "List the label sets.",
    "models": "List, fetch and convert models.",
    "metrics": "Print what a worker counts, and what to do with it.",
    "flower": "Start Flower for these queues.",
    "bench": "Measure the queue, a worker, the HTTP API, backfills and the engine.",
    "lab": "Train and evaluate models offline.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they run, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """The names, in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """The command from its module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tagmill.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        """The list in the help text, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tagmill")
def cli() -> None:
    """Tag support tickets and customer comments with labels chosen at request time."""


def main() -> None:
    """Run the command; a known error is printed in its own words, without a traceback."""
    try:
        cli(standalone_mode=True)
    except SettingsError as e:
        click.echo("\n".join(f"settings: {problem}" for problem in e.problems), err=True)
        sys.exit(2)
    except BrokerUnreachable as e:
        click.echo(f"broker: {e}", err=True)
        sys.exit(3)
    except TagmillError as e:
        click.echo(f"{type(e).__name__}: {e}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
