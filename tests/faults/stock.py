"""What plain Celery does under the same fault: its own transport and pool, ``acks_late`` and ``reject_on_worker_lost``.

The control of each loss test (row A48): a test in whose control nothing is lost could not have seen any. Its effect is
one committed row in the table that ``Witness`` reads. ``STOCK_TASK_S`` and ``STOCK_VISIBILITY_S`` say how long a task
takes, and after how long Redis delivers again what is held.
"""

import os
import sqlite3
import time
from contextlib import closing
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from tagging.names import EXCHANGE, TAG_TICKET, TAGGING_QUEUES

ON_REDIS = os.environ["TAGMILL_BROKER__URL"].startswith("redis")

TASK_S = float(os.environ.get("STOCK_TASK_S", "0"))
VISIBILITY_S = float(os.environ.get("STOCK_VISIBILITY_S", "10"))

QUORUM = {"x-queue-type": "quorum"}

app = Celery("stock", broker=os.environ["TAGMILL_BROKER__URL"], set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=48,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 10,
        "socket_timeout": 10,
        "health_check_interval": 10,
    }
    if ON_REDIS
    else {},
    task_queues=[
        Queue(
            name,
            Exchange(EXCHANGE, type="direct" if ON_REDIS else "topic"),
            routing_key=name,
            queue_arguments=None if ON_REDIS else QUORUM,
        )
        for name in TAGGING_QUEUES
    ],
)


@app.task(name=TAG_TICKET)
def tag_ticket(message: dict[str, Any]) -> None:
    """Note that this document was done."""
    time.sleep(TASK_S)
    with closing(sqlite3.connect(os.environ["STOCK_LEDGER"], timeout=30)) as database, database:
        database.execute("INSERT INTO effects VALUES (?, ?)", (message["ref"], message.get("revision", 0)))
