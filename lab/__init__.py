"""Offline tools for people who choose models and labels: the corpus, the demo model's training, and measurements."""
