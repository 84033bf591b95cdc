"""A real helpdesk, django-helpdesk on SQLite: ``python -m tests.broker.django_site prepare``, then ``runserver``."""

import os
import sys

from django.conf import settings

settings.configure(
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["HELPDESK_DATABASE"]}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.humanize",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.sites",
        "django.contrib.staticfiles",
        "rest_framework",
        "helpdesk",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"]},
    EMAIL_BACKEND="django.core.mail.backends.dummy.EmailBackend",
    SITE_ID=1,
    STATIC_URL="/static/",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
    HELPDESK_TEAMS_MODE_ENABLED=False,
    HELPDESK_WEBHOOK_TIMEOUT=10,
)

import django  # noqa: E402  # only once it is configured, here and below

django.setup()

from django.core.management import call_command, execute_from_command_line  # noqa: E402
from django.urls import include, path  # noqa: E402

urlpatterns = [path("", include("helpdesk.urls", namespace="helpdesk"))]


def prepare() -> None:
    """The tables, a queue, a field for tags, and two people: an agent, and us."""
    from django.contrib.auth import get_user_model
    from helpdesk.models import CustomField, Queue

    call_command("migrate", verbosity=0)
    people = get_user_model().objects
    for name in ("agent", "tagmill"):
        people.create_superuser(name, f"{name}@example.com", "password")
    Queue.objects.create(title="Support", slug="support", allow_public_submission=True)
    CustomField.objects.create(
        name="tags", label="Tags", data_type="varchar", max_length=200, required=False, ordering=1
    )
    print(people.get(username="tagmill").pk)


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare()
    else:
        execute_from_command_line(sys.argv)
