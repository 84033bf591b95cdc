"""The tests. `unit/` is pure, `ports/` runs one suite over every implementation of a port."""
