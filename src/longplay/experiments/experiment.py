"""An experiment: a control, treatments and a salt. It is a policy itself, so a world or a service
runs it like any other."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions import (
    DEFAULT_SLOTS,
    Adaptive,
    Contexts,
    Decisions,
    Policy,
    Slated,
    as_read,
    check_one_each,
    reads_users,
    rules_of,
    showings_of,
    shows_fewer,
)
from longplay.display import percent
from longplay.errors import ConfigError, DataError
from longplay.experiments.analysis import analyze
from longplay.experiments.assignment import assign
from longplay.experiments.enrolment import enrolled_of, logged_arms
from longplay.experiments.readout import Readout
from longplay.frames import Column
from longplay.lake.lake import Lake
from longplay.progress import Progress, reporting
from longplay.signals.declare.checks import MAX_WINDOW_DAYS
from longplay.signals.outcomes.enrolled_sums import ENTRY_DAYS
from longplay.signals.signal import Signal

CONTROL = "control"


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Experiment:
    """An experiment: users are hashed to arms by (salt, user), and each arm is a policy that
    decides for its own users.

    Attributes:
        arms: arm name -> policy, the control first.
        shares: share of users of each arm, in that order.
        salt: what the hash is keyed with: another salt is another, independent assignment.
        label: what the log calls it (column `experiment`): the name given, else the salt.
        entry_days: days from a user's first exposure in which entries of signals count.
    """

    arms: Mapping[str, Policy]
    shares: tuple[float, ...]
    salt: str
    label: str
    entry_days: int
    _given_name: str | None = field(repr=False)

    def __init__(
        self,
        control: Policy,
        treatment: Policy | Mapping[str, Policy],
        *,
        salt: str,
        shares: Sequence[float] | Mapping[str, float] | None = None,
        name: str | None = None,
        entry_days: int = ENTRY_DAYS,
    ) -> None:
        """`treatment`: one policy (its arm is named "treatment"), or {arm: policy}. `shares`: by
        arm, control first; default equal.

        Raises:
            ConfigError: shares that are not positive or do not sum to 1, arms that disagree on the
                number of slots, an arm that is itself an experiment, an empty salt.
        """
        treatments = dict(treatment) if isinstance(treatment, Mapping) else {"treatment": treatment}
        if (
            not treatments
            or CONTROL in treatments
            or not all(isinstance(arm, str) and arm for arm in treatments)
        ):
            raise ConfigError(
                f"Experiment: treatments {list(treatments)} given, expected at least one named "
                f"policy, none of them {CONTROL!r}"
            )
        arms = {CONTROL: control, **treatments}
        for arm, policy in arms.items():
            if isinstance(policy, Experiment) or not isinstance(policy, Policy):
                raise ConfigError(
                    f"Experiment: arm {arm!r} is a {type(policy).__name__}, expected a policy "
                    "that is not itself an experiment"
                )
        if not isinstance(salt, str) or not salt:
            raise ConfigError(
                f"Experiment: salt={salt!r} given, expected a text that no other experiment has, "
                "e.g. '2026-11'"
            )
        if (
            not isinstance(entry_days, int)
            or isinstance(entry_days, bool)
            or not 1 <= entry_days <= MAX_WINDOW_DAYS
        ):
            raise ConfigError(
                f"Experiment: entry_days={entry_days!r} given, expected 1 to {MAX_WINDOW_DAYS} "
                "whole days"
            )
        slates = {arm: policy.slate for arm, policy in arms.items() if isinstance(policy, Slated)}
        if len(set(slates.values())) > 1:
            raise ConfigError(
                f"Experiment: arms with different numbers of slots, {slates}; expected one, or "
                "the arms are shown differently"
            )
        self._set(
            arms,
            _checked_shares(shares, tuple(arms)),
            salt,
            salt if name is None else name,
            entry_days,
            name,
        )

    def _set(
        self,
        arms: Mapping[str, Policy],
        shares: tuple[float, ...],
        salt: str,
        label: str,
        entry_days: int,
        name: str | None,
    ) -> None:
        values = {
            "arms": arms,
            "shares": shares,
            "salt": salt,
            "label": label,
            "entry_days": entry_days,
            "_given_name": name,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @classmethod
    def logged(
        cls,
        lake: Lake,
        name: str | None = None,
        *,
        control: str = CONTROL,
        shares: Mapping[str, float] | None = None,
        entry_days: int = ENTRY_DAYS,
    ) -> Experiment:
        """An experiment that another system ran, as the lake's decisions have it: to be analysed
        and audited, not to be run.

        Who was in which arm is what the log says. No salt is known, so whether users have the arm
        of their hash is not checked; the other checks are.

        Args:
            lake: its decisions have `experiment`, `arm` and, unless `shares` are given, `arm_prob`.
            name: the experiment; None: the only one of the log.
            control: the name of the arm that the others are compared with.
            shares: share of users of each arm; None: as `arm_prob` says.
            entry_days: days from a user's first exposure in which entries of signals count.

        Raises:
            DataError: the log has no such experiment, no such arm, fewer than two arms, or two
                shares for an arm.
            ConfigError: no shares are known, or they do not sum to 1.
        """
        label, shares_of = logged_arms(lake, name)
        if control not in shares_of:
            raise DataError(
                f"experiment {label!r}: no arm {control!r}, it has {', '.join(shares_of)}; name "
                f"the control, e.g. control={next(iter(shares_of))!r}"
            )
        if len(shares_of) < 2:
            raise DataError(
                f"experiment {label!r}: only the arm {control!r} was logged; expected at least two"
            )
        names = [control, *(arm for arm in shares_of if arm != control)]
        if shares is None:
            if unknown := [arm for arm in names if shares_of[arm] is None]:
                raise ConfigError(
                    f"experiment {label!r}: the log has no arm_prob for {', '.join(unknown)}; "
                    f"give shares, e.g. {{{control!r}: 0.5, ...}}"
                )
            shares = {arm: share for arm, share in shares_of.items() if share is not None}
        experiment = cls.__new__(cls)
        arms = {arm: LoggedArm(arm, label) for arm in names}
        experiment._set(arms, _checked_shares(shares, tuple(names)), "", label, entry_days, label)
        return experiment

    @property
    def trained_under(self) -> Mapping[str, str]:
        """The rules of exclusions that its arms' policies were trained under, of those that say
        so."""
        return rules_of(self.arms.values())

    @property
    def hashed(self) -> bool:
        """Whether users are assigned by the hash of a known salt."""
        return bool(self.salt)

    @property
    def control(self) -> Policy:
        """The policy that treatments are compared with."""
        return next(iter(self.arms.values()))

    @property
    def arm_names(self) -> tuple[str, ...]:
        """Names of the arms, the control first."""
        return tuple(self.arms)

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of the arms that are not the control."""
        return self.arm_names[1:]

    # -- a policy
    # ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The label and a digest of salt, shares and the arms' own names. Decisions carry the arm's
        name, whose probabilities they are."""
        digest = hashlib.sha256(
            json.dumps(
                [self.salt, self.shares, {arm: policy.name for arm, policy in self.arms.items()}]
            ).encode()
        )
        return f"{self.label}@{digest.hexdigest()[:8]}"

    @property
    def history(self) -> int:
        """The largest number of past items that any arm reads.

        The contexts are logged as given. Each arm reads the last items it wants and no more, which
        is what `history` promises (see `decisions.Policy`), so its log-probabilities follow from
        the logged context.
        """
        return max(policy.history for policy in self.arms.values())

    @property
    def showings(self) -> int:
        """The largest number of past showings that any arm reads."""
        return max(map(showings_of, self.arms.values()))

    @property
    def reads_users(self) -> bool:
        """Whether any arm reads what the service knows of users."""
        return any(map(reads_users, self.arms.values()))

    @property
    def slate(self) -> int:
        """Slots a world or a service asks for by default."""
        slates = (policy.slate for policy in self.arms.values() if isinstance(policy, Slated))
        return next(slates, DEFAULT_SLOTS)

    @property
    def shorter(self) -> bool:
        """Whether some arm shows less than is asked for."""
        return any(shows_fewer(policy) for policy in self.arms.values())

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context by its user's arm, in the contexts' order, with experiment, arm and
        arm_prob filled in.

        Every arm is given a generator in the same state: a policy whose draws are decided by (the
        generator's next number, context) decides for a user what it would have decided alone, so an
        A/A experiment is its policy.
        """
        arm_N = self.assign(contexts.frame["user_id"])
        frames, rows, states = [], [], []
        for number, (arm, policy) in enumerate(self.arms.items()):
            arm_rows = np.flatnonzero(arm_N == number)
            if len(arm_rows) == 0 and (len(contexts) or number):
                continue
            arm_rng = copy.deepcopy(rng)
            frame = policy.decide(as_read(policy, contexts.take(arm_rows)), arm_rng).frame
            marks = {
                "experiment": pl.lit(self.label),
                "arm": pl.lit(arm),
                "arm_prob": pl.lit(self.shares[number]),
            }
            frames.append(frame.with_columns(**marks))
            rows.append(arm_rows)
            states.append(arm_rng.bit_generator.state)
        if states:
            rng.bit_generator.state = states[
                0
            ]  # on, as one policy would have left it: the next call must not repeat the draws
            if any(
                str(state) != str(states[0]) for state in states
            ):  # some arm drew more: a new stream, that overlaps with none of theirs
                seed = int.from_bytes(hashlib.sha256(str(states).encode()).digest(), "big")
                rng.bit_generator.state = type(rng.bit_generator)(seed).state  # type: ignore[call-arg]
        return Decisions(pl.concat(frames)[np.argsort(np.concatenate(rows), kind="stable")])

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> NDArray[np.float64]:
        """Log-probability of every slot under the arm of the context's user, shape [N, S]."""
        check_one_each(contexts, slates)
        arm_N = self.assign(contexts.frame["user_id"])
        parts, rows = [], []
        for number, policy in enumerate(self.arms.values()):
            arm_rows = np.flatnonzero(arm_N == number)
            if len(arm_rows) or (number == 0 and not len(contexts)):
                seen = as_read(policy, contexts.take(arm_rows))
                parts.append(policy.log_prob(seen, slates.gather(arm_rows)))
                rows.append(arm_rows)
        return np.concatenate(parts)[np.argsort(np.concatenate(rows), kind="stable")]

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame) -> Experiment:
        """The next version: every arm that learns has seen all users' events, the other arms stay
        as they are.

        All of them, not its own users' alone: an arm of 5% would otherwise learn from less than its
        rivals, and the experiment would compare amounts of data instead of policies. The price:
        what one arm's users do teaches the others.
        """
        arms = {
            arm: policy.adapt(items, events) if isinstance(policy, Adaptive) else policy
            for arm, policy in self.arms.items()
        }
        treatments = {arm: arms[arm] for arm in self.treatments}
        return Experiment(
            arms[CONTROL],
            treatments,
            salt=self.salt,
            shares=self.shares,
            name=self._given_name,
            entry_days=self.entry_days,
        )

    # -- an experiment
    # -------------------------------------------------------------------------------

    def assign(self, user_ids: Column) -> NDArray[np.int64]:
        """Arm number of each user, shape [N]; 0 is the control.

        Args:
            user_ids: [N] ids as a list, a numpy array, or a Series of polars or pandas. Their type
                does not matter: 12345, 12345.0 and "12345" are one user (see `longplay.ids`).

        Raises:
            DataError: an id that is missing or has no exact text, such as a truth value or a float
                from 2**53 on; or the experiment was run by another system, whose hash is not known.
        """
        if not self.hashed:
            raise DataError(
                f"experiment {self.label!r} was run by another system: who is in which arm is "
                "known of logged users alone, see enrolled()"
            )
        return assign(self.salt, user_ids, self.shares)

    def enrolled(self, lake: Lake) -> pl.DataFrame:
        """Users with their first exposure and arm, from the lake's decisions; see
        `enrolment.enrolled_of`."""
        return enrolled_of(lake, self.label, self.arm_names)

    def analyze(
        self,
        lake: Lake,
        signals: Signal | Sequence[Signal],
        *,
        guardrails: Mapping[Signal, float] | None = None,
        alpha: float = 0.05,
        power: float = 0.8,
        as_of: datetime | None = None,
        covariates: bool = True,
        minimum_effect: float = 0.01,
        progress: Progress = None,
    ) -> Readout:
        """Read out the experiment: a line per signal and treatment, quality checks, a decision per
        treatment.

        Every signal is summed per enrolled user over the entry window from first exposure, zeros
        kept, and only users who are mature at `as_of` are compared, the same in all arms
        (`signals.outcomes.enrolled_sums`). Differences are adjusted for what was known of users
        before enrolment (`statistics.lin_adjusted`).

        The intervals hold for *one* look at a time fixed beforehand. Reading it daily until it says
        ship finds something in one of four experiments in which there is nothing.

        Args:
            lake: the log, the experiment's weeks included.
            signals: success metrics, of which at least one must be superior. alpha is shared out
                over them and the treatments (Bonferroni): "at least one" is decided by the smallest
                p-value, where Holm is no better.
            guardrails: signal -> margin, the relative loss that must be ruled out, e.g. 0.02. Each
                at the full alpha: all of them must pass, so there is nothing to correct.
            alpha: two-sided.
            power: of the plans in "keep running", shared out over success and guardrails.
            as_of: UTC; default the lake's watermark.
            covariates: adjust, or compare plain means.
            minimum_effect: the least relative gain worth having, for "keep running" and for
                stopping in vain.

            progress: called with (steps done, steps); True or False: a progress line, or none;
                default: a line on a terminal or in a notebook.

        Raises:
            DataError: the lake has no decision of this experiment, or cannot answer a signal.
            ConfigError: no signal, a signal twice, a margin outside (0, 1).
        """
        with reporting("Experiment.analyze", "steps", progress) as report:
            return analyze(
                self,
                lake,
                signals,
                guardrails or {},
                alpha,
                power,
                as_of,
                covariates,
                minimum_effect,
                report,
            )

    def __str__(self) -> str:
        listed = ", ".join(
            f"{arm} {percent(share)}" for arm, share in zip(self.arm_names, self.shares)
        )
        how = f"salt {self.salt}" if self.hashed else "as logged"
        return (
            f"experiment {self.label} ({how}): {listed}; entries count for {self.entry_days} "
            "days from first exposure"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"


@dataclass(frozen=True)
class LoggedArm:
    """An arm of an experiment that another system ran: its slates are logged, its probabilities are
    not known."""

    arm: str
    experiment: str

    @property
    def name(self) -> str:
        """`arm@experiment`."""
        return f"{self.arm}@{self.experiment}"

    @property
    def history(self) -> int:
        """Past items that it reads: none."""
        return 0

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """Raise a DataError: how this arm decides is not known."""
        raise DataError(
            f"arm {self.arm!r} of experiment {self.experiment!r} was logged by another system, "
            "which alone can decide for it"
        )

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> NDArray[np.float64]:
        """Raise a DataError: only the probabilities in the log are known."""
        raise DataError(
            f"arm {self.arm!r} of experiment {self.experiment!r} was logged by another system; "
            "its probabilities are those in the log"
        )


def _checked_shares(
    shares: Sequence[float] | Mapping[str, float] | None, arms: tuple[str, ...]
) -> tuple[float, ...]:
    if shares is None:
        return (1 / len(arms),) * len(arms)
    if isinstance(shares, Mapping):
        if set(shares) != set(arms):
            raise ConfigError(
                f"Experiment: shares of {', '.join(shares)} given, expected {', '.join(arms)}"
            )
        shares = [shares[arm] for arm in arms]
    share_of_arm = tuple(float(share) for share in shares)
    if (
        len(share_of_arm) != len(arms)
        or not all(math.isfinite(share) and share > 0 for share in share_of_arm)
        or abs(sum(share_of_arm) - 1) > 1e-9
    ):
        raise ConfigError(
            f"Experiment: shares={list(share_of_arm)} given, expected {len(arms)} positive numbers "
            "that "
            f"sum to 1, for {', '.join(arms)}"
        )
    return share_of_arm
