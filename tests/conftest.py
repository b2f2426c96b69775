"""Hypothesis profiles, shared by every room: `check` is quick, `full` is the whole proof."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# In CI the same examples each time: a red run is the change's doing. Elsewhere new ones.
_COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.register_profile("check", _COMMON, max_examples=100)
settings.register_profile("full", _COMMON, max_examples=10_000)
# One mutant after another: the same examples each time, and no search for the smallest.
settings.register_profile(
    "mutants",
    _COMMON,
    max_examples=50,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))
