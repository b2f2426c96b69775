"""Hypothesis profiles, shared by every room: `check` is quick, `full` is the whole proof."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("check", _COMMON, max_examples=100)
settings.register_profile("full", _COMMON, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))
