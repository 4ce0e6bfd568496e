"""Hypothesis profiles of the laws: a few examples in ``make test``, thousands in ``make laws``.

``NATALOG_LAWS_EXAMPLES`` says how many; each law takes its share with `examples`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "core"))

settings.register_profile(
    "laws",
    max_examples=int(os.environ.get("NATALOG_LAWS_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.load_profile("laws")
