"""The HTTP API: as its callers meet it."""
