"""The language that producers and workers share: messages, labels, names, settings, errors and log events."""

__version__ = "0.1.0"
