"""One worker process for each device: which devices there are, who serves them, and what becomes of those that end.

``devices`` finds them, ``placement`` makes the children, ``decisions`` says what to do, ``loop`` does it. None of it
imports Celery or torch: the process that survives everything holds as little as it can.
"""
