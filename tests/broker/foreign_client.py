"""Somebody else's program: plain Celery, nothing of ours. Sends one ticket and prints its answer.

python foreign_client.py BROKER_URL RESULTS_URL TEXT
"""

import json
import sys

from celery import Celery
from kombu import Queue

broker, results, text = sys.argv[1:]
app = Celery(broker=broker, backend=results)
if broker.startswith("amqp"):
    # The queue is the worker's, which has declared it; it is a quorum queue.
    app.conf.task_queues = [Queue("tag.tickets", exchange="", routing_key="tag.tickets", no_declare=True)]

sent = app.send_task(
    "tagmill.tag_ticket", args=[{"text": text, "labels": ["billing", "login"], "ref": "F-1"}], queue="tag.tickets"
)
print(json.dumps({"answer": app.AsyncResult(sent.id).get(timeout=30), "modules": sorted(sys.modules)}))
