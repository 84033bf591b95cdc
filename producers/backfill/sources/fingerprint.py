"""What a source is recognised by when its job goes on."""

import json
from hashlib import blake2b
from typing import Any


def fingerprint_of(*parts: Any) -> str:
    """A digest of what describes a source."""
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
