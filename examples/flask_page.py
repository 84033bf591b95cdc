"""A page that tags what is typed into it: ``flask --app flask_page run``. Nothing of Tagmill is installed here."""

import os

from celery import Celery
from flask import Flask, render_template_string, request

tagmill = Celery(broker=os.environ["BROKER_URL"], backend=os.environ["RESULTS_URL"])
app = Flask(__name__)
PAGE = """<!doctype html><html lang="en"><title>Tags</title><form method="post">
<textarea name="text" aria-label="Text" required>{{ text }}</textarea>
<input name="labels" aria-label="Labels" value="{{ labels }}"><button>Tag</button></form>
<ul>{% for tag in tags %}<li>{{ tag.label }}: {{ tag.decision }} ({{ tag.score | round(2) }})</li>{% endfor %}</ul>"""


@app.route("/", methods=["GET", "POST"])
def page() -> str:
    """The form, with the tags of the text that was sent."""
    text = request.form.get("text", "")
    labels = request.form.get("labels", "delivery, invoice, login")
    tags = ask(text, [label.strip() for label in labels.split(",")]) if text else []
    return render_template_string(PAGE, text=text, labels=labels, tags=tags)


def ask(text: str, labels: list[str]) -> list[dict]:
    """The tags of the text, from a worker."""
    body = {"text": text, "labels": labels, "multi_label": True}
    sent = tagmill.send_task("tagmill.tag_ticket", args=[body], queue="tag.tickets", argsrepr="<ticket>")
    return sent.get(timeout=30)["tags"]
