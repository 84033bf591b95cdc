"""One suite a port, over every implementation."""
