"""What running workers are told through Celery's remote control, and which of them have heard it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from kombu.exceptions import OperationalError

from producers.app import make_app
from tagging.errors import BrokerUnreachable
from tagging.names import FORGET, TAGGING_QUEUES
from tagging.settings import Settings
from tagging.urls import mask_url

_ANSWER_S: Final = 2.0
"""A worker answers from its loop, which is free while a model runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The nodes that were told something."""

    done: frozenset[str]
    silent: frozenset[str]
    """They consume our queues, and did not say that they have done it."""


def tell_to_forget(settings: Settings, digests: Collection[str]) -> Told:
    """Let every worker that runs forget what it knows, in its own memory, of the texts of these digests.

    Raises:
        BrokerUnreachable: Nobody knows who was told.
    """
    app = make_app(settings)
    options = {"connect_timeout": _ANSWER_S, "transport_options": {"max_retries": 0}}
    try:
        with app.connection_for_write(**options) as connection:
            inspect = app.control.inspect(timeout=_ANSWER_S, connection=connection)
            queues_of = inspect.active_queues() or {}
            taggers = frozenset(node for node, queues in queues_of.items() if _are_ours(queues))
            if not taggers:
                return Told(done=frozenset(), silent=frozenset())
            replies = app.control.broadcast(
                FORGET,
                arguments={"digests": sorted(digests)},
                destination=sorted(taggers),
                reply=True,
                timeout=_ANSWER_S,
                limit=len(taggers),
                connection=connection,
            )
    except (OperationalError, OSError) as e:
        raise BrokerUnreachable(f"{mask_url(settings.broker.url)} cannot be reached: {e}") from e
    finally:
        app.close()
    done = frozenset(node for reply in replies for node, said in reply.items() if "ok" in said)
    return Told(done=done, silent=taggers - done)


def _are_ours(queues: Collection[dict[str, object]]) -> bool:
    return any(queue["name"] in TAGGING_QUEUES for queue in queues)
