"""Hypothesis profiles: ``--hypothesis-profile=nightly`` draws many more examples than the default."""

from __future__ import annotations

import os

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", ".pytest_cache/hypothesis")

from hypothesis import HealthCheck, settings

QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile("nightly", max_examples=1000, deadline=None, suppress_health_check=QUIET)
settings.load_profile("default")
