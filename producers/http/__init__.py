"""The HTTP API: accepts messages into the intake, waits for answers, and says what became of them."""
