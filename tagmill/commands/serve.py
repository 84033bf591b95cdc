"""``tagmill serve``: the HTTP API."""

import sys

import click


@click.command()
def command() -> None:
    """Accept messages over HTTP, wait for answers and say what became of them, until SIGTERM.

    Callers need a key from `tagmill keys create`. What is accepted is in the ledger; run `tagmill relay` beside
    it, which publishes what a broker could not take at once.
    """
    from tagging import logs
    from tagging.settings import load

    loaded = load()
    logs.configure(loaded.settings.log.level)
    try:
        from producers.http.app import make_app
        from producers.http.server import serve
    except ModuleNotFoundError as e:
        click.echo(f"{e.name} is not installed; install tagmill[http]", err=True)
        sys.exit(2)
    http = loaded.settings.http
    app = make_app(loaded)
    click.echo(f"http://{http.address}:{http.port}  access: {http.access}", err=True)
    serve(app, loaded.settings)
