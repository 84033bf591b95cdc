"""Ticketing systems, one module each: verify what they send, read it, and put tags where agents look."""
