"""How figures are said to people."""


def counted(n: int, noun: str) -> str:
    """So many of them: ``1 tag``, ``2,000 tags``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def duration(seconds: float) -> str:
    """So long, in the two units that matter: ``42 s``, ``1m 02s``, ``2h 05m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}h {minutes:02d}m"
