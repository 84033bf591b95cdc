"""Each fault happens to real servers and real workers; each test prints one FAULT line and ends by itself."""
