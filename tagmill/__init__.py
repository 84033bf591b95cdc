"""The ``tagmill`` command. It may import every half; nothing imports it."""
