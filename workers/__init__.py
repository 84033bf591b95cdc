"""Programs that take work off the queue."""
