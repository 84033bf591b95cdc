"""Somebody else's Celery app, with a queue of its own. It imports nothing of ours."""

import os

from celery import Celery

on_rabbit = os.environ["HELPDESK_BROKER"].startswith("amqp")
app = Celery("helpdesk", broker=os.environ["HELPDESK_BROKER"], backend=os.environ["HELPDESK_RESULTS"])
app.conf.update(
    task_default_queue="helpdesk",
    task_default_queue_type="quorum" if on_rabbit else "classic",
    broker_connection_retry_on_startup=True,
    worker_send_task_events=True,
)


@app.task(name="helpdesk.file")
def file(answer: dict) -> str:
    """File one answer."""
    return f"filed as {answer['labels'][0]}"


@app.task(name="helpdesk.count")
def count(answers: list) -> int:
    """Say how many answers came."""
    return len(answers)


@app.task(name="helpdesk.alarm")
def alarm(task_id: str) -> str:
    """Note that a task failed."""
    return f"alarm for {task_id}"
