"""Models that answer "does this text entail that hypothesis?", and the process they live in.

Nothing is imported here: a program that only lists models or talks to an engine process needs no torch.
"""

import sys

# OpenVINO and NNCF report each import and each quantisation to Google Analytics, and leave a client's id in the user's
# home, where this package is found; where it is not, both go on without. Here, since any module below may be the first
# to import them.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # how Python spells "cannot be imported"
