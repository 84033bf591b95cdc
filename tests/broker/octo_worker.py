"""The write-back worker over the tests' own server: ``celery -A tests.broker.octo_worker worker``."""

from tests.broker.octo import connect
from workers.writeback.app import make_app

app = make_app(connect=connect)
