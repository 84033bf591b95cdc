"""What may go wrong with a model.

```
Exception
├── ModelRefused            the checkpoint cannot be served; nothing was loaded
└── EngineError             the device failed
    ├── DeviceOutOfMemory   nothing was scored, a smaller batch may fit
    └── EngineDied          the engine's process is gone; it answers again after a restart
```
"""

from __future__ import annotations


class ModelRefused(Exception):
    """The checkpoint cannot be served: says why, and what to do about it."""


class EngineError(Exception):
    """The device failed while it scored a batch."""


class DeviceOutOfMemory(EngineError):
    """The batch did not fit on the device: nothing was scored, a smaller one may fit."""


class EngineDied(EngineError):
    """The engine is gone, with everything it was scoring; only a restart brings it back."""
