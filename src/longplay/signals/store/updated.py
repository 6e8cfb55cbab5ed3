"""What one update of a store did."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Updated:
    """What `SignalStore.update` did; days are since 1970-01-01.

    Attributes:
        until: the midnight up to which everything is counted.
        rolled: days whose roll-ups were computed.
        late: those of `rolled` that had been computed before, and got late events.
        users: number of users whose earlier outcomes were computed again, for late events.
        computed: signal label -> entry days computed for all users.
        waiting: signal label -> why the log cannot answer it yet. It is counted from the first day
            once it can.
    """

    until: datetime
    rolled: tuple[int, ...]
    late: tuple[int, ...]
    users: int
    computed: dict[str, tuple[int, ...]]
    waiting: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        most_days = max((len(days) for days in self.computed.values()), default=0)
        if not self.rolled and not most_days and not self.users:
            text = "nothing new"
        else:
            text = (
                f"rolled up {len(self.rolled):,} days, computed {len(self.computed):,} signals on "
                f"at most {most_days:,} entry days"
            )
            if self.late or self.users:
                text += f"; late events re-opened {len(self.late):,} days and {self.users:,} users"
        reasons = "".join(f"\n  waiting: {reason}" for reason in self.waiting.values())
        return f"until {self.until:%Y-%m-%d}: {text}{reasons}"
