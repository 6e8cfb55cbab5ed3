"""Settings of all tests: property tests draw the same examples every time, so that a red run can be
run again.

`HYPOTHESIS_PROFILE=wild pytest` draws new ones, and three times as many.
"""

from __future__ import annotations

from examples import PROFILE
from hypothesis import HealthCheck, settings

SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=SLOW_IS_FINE,
    max_examples=34,  # a third of hypothesis' default, as in `examples`
)
settings.register_profile("wild", deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile(PROFILE)
