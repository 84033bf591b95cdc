"""How figures are said to people."""


def counted(n: int, noun: str) -> str:
    """So many of them: ``1 tag``, ``2,000 tags``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
