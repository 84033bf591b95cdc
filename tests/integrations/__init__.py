"""Ticketing systems: what they send and sign, and how tags get to them."""
