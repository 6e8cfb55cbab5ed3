"""Audit of an early reward: was it right about an experiment, and did its signal matter to the
north star?"""

from longplay.audits.auditing import audit
from longplay.audits.judgement import Agreement, Judgement, Recommendation, judge, judgement_of
from longplay.audits.verdicts import Audit, Verdict

__all__ = [
    "Agreement",
    "Audit",
    "Judgement",
    "Recommendation",
    "Verdict",
    "audit",
    "judge",
    "judgement_of",
]
