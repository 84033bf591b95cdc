"""The database that producers and workers share: the tags that stand, and the dead letters. SQLAlchemy Core, no ORM."""
