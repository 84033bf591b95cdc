"""Puts tags where agents look: takes ``tag.writeback``, and neither the model nor what customers wrote."""
