"""The pipeline's ports, filled: caches, the tag store and the dead letters."""
