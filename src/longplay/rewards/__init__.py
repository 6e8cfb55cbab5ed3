"""Early rewards: beliefs about outcomes that have not matured, and what showing an item is worth.

`rewards` sees signals and logs, never a policy.
"""

from longplay.rewards.baselines import AutoSurrogate, DayTwo, MaturedOnly
from longplay.rewards.calibration import calibration, compare
from longplay.rewards.early import EarlyReward
from longplay.rewards.personal import PersonalReward
from longplay.rewards.progressive import ProgressiveReward
from longplay.rewards.reward import Reward
from longplay.rewards.ridge import TwoPartRidge
from longplay.rewards.sequence_reward import SequenceReward

__all__ = [
    "AutoSurrogate",
    "DayTwo",
    "EarlyReward",
    "MaturedOnly",
    "PersonalReward",
    "ProgressiveReward",
    "Reward",
    "SequenceReward",
    "TwoPartRidge",
    "calibration",
    "compare",
]
