"""Pure tests: no process, no socket, no sleep; time is an argument."""
