"""Programs that put work on the queue."""
