"""What would have happened: off-policy values from a log with propensities, or a refusal with its
reason."""

from longplay.ope.diagnostics import Diagnosis
from longplay.ope.value import diagnose, doubly_robust, estimates, ips, snips

__all__ = ["Diagnosis", "diagnose", "doubly_robust", "estimates", "ips", "snips"]
