"""The shared language of both halves."""
