"""Real worker processes on Redis and on RabbitMQ, seen through Celery as its users see it."""
