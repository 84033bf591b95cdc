"""A Django view that tags what is posted: ``python django_page.py runserver``. Nothing of Tagmill is installed here."""

import os
import sys

from celery import Celery
from celery.exceptions import TimeoutError as NotYet
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

tagmill = Celery(broker=os.environ["BROKER_URL"], backend=os.environ["RESULTS_URL"])
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost", "127.0.0.1"])


def tags(request: HttpRequest) -> JsonResponse:
    """The tags of the ticket that was posted, or its id with 202 where no worker has answered within 30 s."""
    body = {"text": request.POST["text"], "labels": request.POST.getlist("label"), "ref": request.POST["ref"]}
    sent = tagmill.send_task("tagmill.tag_ticket", args=[body], queue="tag.tickets", argsrepr=f"<{body['ref']}>")
    try:
        return JsonResponse({"tags": sent.get(timeout=30)["tags"]})
    except NotYet:
        return JsonResponse({"id": sent.id}, status=202)


urlpatterns, application = [path("tags", tags)], get_wsgi_application()
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
