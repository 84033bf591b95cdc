"""Writes down what a process asks of a network, a line each, in the file ``NETWORK_LOG``; Python imports this first."""

import os
import sys

_ASKS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in _ASKS:
        with open(os.environ["NETWORK_LOG"], "a", encoding="utf-8") as log:  # noqa: PTH123  # importing pathlib is slow
            log.write(f"{event} {[argument for argument in arguments if isinstance(argument, str | tuple | int)]}\n")


sys.addaudithook(_note)
