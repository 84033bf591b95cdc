"""Models that answer "does this text entail that hypothesis?", and the process they live in.

Nothing is imported here: a program that only lists models or talks to an engine process needs no torch.
"""
