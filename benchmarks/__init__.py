"""Measurements. Each prints one JSON object and compares what it measures with its rival in the same run."""
