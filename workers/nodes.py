"""Names of workers on the queue."""

import secrets
import socket


def new_node(prefix: str = "tagmill") -> str:
    """A node name that no worker has had, such as `tagmill-3fa9c1@host`.

    RabbitMQ holds the control queue of a worker that died for as long as it believes in its connection, and refuses it
    to the next of the same name. A process id is no help: in a container it is the same at each start.
    """
    return f"{prefix}-{secrets.token_hex(3)}@{socket.gethostname()}"
