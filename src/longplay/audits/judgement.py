"""The rules of an audit: from five differences and their intervals to keep, reweight or drop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from longplay.experiments.statistics import Contrast

Recommendation = Literal["keep", "reweight", "drop", "undecided"]
Agreement = Literal["agrees", "off by a factor", "opposite", "differs", "unknown"]

# Early and late agree unless one is certainly more than this share larger than the other: nobody
# changes a weight for less.
TOLERANCE = 0.25
FOLLOWS = 0.5  # late follows early unless it is certainly less than this share of it


@dataclass(frozen=True)
class Judgement:
    """What follows from the differences of an audit.

    Attributes:
        agreement: how early and late compare.
        recommendation: keep, reweight, drop or undecided.
        reason: why, in words.
        open: the differences whose intervals contain 0 and would have to leave it; empty where more
            users would not change the judgement.
    """

    agreement: Agreement
    recommendation: Recommendation
    reason: str
    open: tuple[Contrast, ...] = ()


def judge(
    early: Contrast, late: Contrast, gap: Contrast, gain: Contrast, loss: Contrast, level: float
) -> tuple[Agreement, Recommendation, str]:
    """Agreement, recommendation and reason of `judgement_of`."""
    judgement = judgement_of(early, late, gap, gain, loss, level)
    return judgement.agreement, judgement.recommendation, judgement.reason


def judgement_of(
    early: Contrast,
    late: Contrast,
    gap: Contrast,
    gain: Contrast,
    loss: Contrast,
    level: float,
    rose: str = "rose",
    fell: str = "fell",
) -> Judgement:
    """Decide what to do with a signal, from five differences between the arms and their intervals.

    Nothing is kept, reweighted or dropped without evidence.

    Args:
        early: difference of the beliefs, above 0 where the signal got better.
        late: difference of the matured outcomes, above 0 where the signal got better.
        gap: early minus late, paired by user.
        gain: north star, treatment - (1 + margin) control: above 0 where it gained at least its
            margin.
        loss: north star, treatment - (1 - margin) control: below 0 where it lost at least its
            margin.
        level: of the intervals, in (0, 1).
        rose: the verb for a signal that got better; "fell" where lower is better.
        fell: the verb for a signal that got worse.

    Agreement is decided in this order:

    - early's interval contains 0: "differs" (early saw nothing, or is too noisy);
    - late's interval contains 0: "differs";
    - early and late lie on different sides of 0: "opposite";
    - the gap's interval contains 0, or late / early certainly lies within a factor of
      1 + `TOLERANCE` of 1: "agrees";
    - late / early certainly lies beyond that factor: "off by a factor";
    - else "differs".

    | late       | north star                | early and late   | recommendation   | because                         |
    |------------|---------------------------|------------------|------------------|---------------------------------|
    | contains 0 | any                       | any              | undecided        | the signal did not move         |
    | rose       | spans +margin             | any              | undecided        | whether it mattered is open     |
    | rose       | below +margin             | any              | drop             | it rises without the north star |
    | rose       | above +margin             | agrees           | keep             | early was right; it mattered    |
    | rose       | above +margin             | off by a factor  | reweight         | right direction, wrong size     |
    | rose       | above +margin             | opposite         | drop             | early would have stopped a gain |
    | rose       | above +margin             | differs          | undecided        | early is noisy, or saw nothing  |
    | fell       | spans -margin             | any              | undecided        | whether it mattered is open     |
    | fell       | above -margin, or it rose | any              | drop             | it falls without the north star |
    | fell       | below -margin             | as where it rose | as where it rose | they fell together              |

    A signal that this table leaves undecided is dropped where it is a false alarm: early's interval
    excludes 0, late is certainly less than half of early and not on its side, and the north star
    certainly fell short of its margin on that side.

    A signal that fell while the north star rose is dropped, not given a negative weight: one
    experiment shows that it can be given up, not that pushing it down would help. For the north
    star's own early reward only the agreement counts.
    """
    agreement, open_differences = _agreement(early, late, gap, level)
    early_side = _side(early, level)
    late_side = _side(late, level)
    if late_side < 0:
        star = loss
        star_side = -_side(loss, level)
    else:
        star = gain
        star_side = _side(gain, level)
    is_open = late_side == 0 or star_side == 0
    if is_open and _is_false_alarm(early, late, gap, gain, loss, level):
        early_verb = rose if early_side > 0 else fell
        words = (
            f"a false alarm: early certainly {early_verb}, late and the north star certainly did "
            "not follow"
        )
        return Judgement(agreement, "drop", words)
    if late_side == 0:
        words = "the experiment did not move the signal: its late interval contains 0"
        return Judgement(agreement, "undecided", words, (late,))
    movement = rose if late_side > 0 else fell
    star_verb = "gained" if late_side > 0 else "lost"
    if star_side == 0:
        words = (
            f"it {movement}, but whether the north star {star_verb} its margin is not known: the "
            "interval contains the margin"
        )
        return Judgement(agreement, "undecided", words, (star, *open_differences))
    if star_side < 0:
        words = (
            f"it {movement} while the north star certainly {star_verb} less than its margin: it "
            "can be moved without the north star"
        )
        return Judgement(agreement, "drop", words)
    together = f"it {movement} and the north star {star_verb} its margin"
    return _judgement_by_agreement(agreement, together, early_side, open_differences)


def _judgement_by_agreement(
    agreement: Agreement, together: str, early_side: int, open_differences: tuple[Contrast, ...]
) -> Judgement:
    """The judgement where signal and north star certainly moved the same way.

    Args:
        agreement: of early and late.
        together: says that they moved together.
        early_side: 1, -1 or 0, see `_side`.
        open_differences: what keeps early and late from agreeing for certain.
    """
    if agreement == "agrees":
        words = (
            f"{together}; early and late agree, up to their errors or a factor of {1 + TOLERANCE:g}"
        )
        return Judgement(agreement, "keep", words)
    if agreement == "off by a factor":
        return Judgement(agreement, "reweight", f"{together}, but early was off by a factor")
    if agreement == "opposite":
        words = f"{together}, but early pointed the other way: as a reward it would have misled"
        return Judgement(agreement, "drop", words)
    why_unsure = "by what factor early is off is not known well enough"
    if early_side == 0:
        why_unsure = "early did not see it: too noisy at this age, or blind to it"
    return Judgement(agreement, "undecided", f"{together}, but {why_unsure}", open_differences)


def covariance_of(early: Contrast, late: Contrast, gap: Contrast) -> float:
    """Covariance of early and late, from the error of their paired gap.

    Var(gap) = Var(early) + Var(late) - 2 Cov(early, late).
    """
    return (early.std_error**2 + late.std_error**2 - gap.std_error**2) / 2


def _agreement(
    early: Contrast, late: Contrast, gap: Contrast, level: float
) -> tuple[Agreement, tuple[Contrast, ...]]:
    """Whether early and late agree, and which differences leave that open."""
    early_side = _side(early, level)
    late_side = _side(late, level)
    if early_side == 0:
        return "differs", (early,)
    if late_side == 0:
        return "differs", (late,)
    if early_side != late_side:
        return "opposite", ()
    if _side(gap, level) == 0:
        return "agrees", ()
    factor = 1 + TOLERANCE
    excesses = (
        _weighted_difference(late, early, factor, gap),
        _weighted_difference(early, late, factor, gap),
    )
    # 1 where the larger is certainly beyond the tolerance, -1 where it is certainly within
    sides = [_side(excess, level) * early_side for excess in excesses]
    if max(sides) > 0:
        return "off by a factor", ()
    if max(sides) < 0:
        return "agrees", ()
    return "differs", tuple(excess for excess, side in zip(excesses, sides) if side == 0)


def _is_false_alarm(
    early: Contrast, late: Contrast, gap: Contrast, gain: Contrast, loss: Contrast, level: float
) -> bool:
    """Whether early moved and neither late nor the north star followed, all for certain.

    Late did not follow where it is less than `FOLLOWS` times early and not on early's side.
    """
    early_side = _side(early, level)
    if early_side == 0 or _side(late, level) == early_side:
        return False
    if early_side > 0:
        star_fell_short = _side(gain, level) < 0
    else:
        star_fell_short = _side(loss, level) > 0
    shortfall = _weighted_difference(late, early, FOLLOWS, gap)
    return star_fell_short and _side(shortfall, level) == -early_side


def _weighted_difference(
    contrast: Contrast, other: Contrast, factor: float, gap: Contrast
) -> Contrast:
    """`contrast` minus `factor` times `other`, for early and late in either order."""
    variance = (
        contrast.std_error**2
        + factor**2 * other.std_error**2
        - 2 * factor * covariance_of(contrast, other, gap)
    )
    return Contrast(
        contrast.value - factor * other.value,
        math.sqrt(max(variance, 0.0)),
        min(contrast.df, other.df),
    )


def _side(contrast: Contrast, level: float) -> int:
    """1 where the interval lies above 0, -1 where it lies below, 0 where it contains 0."""
    low, high = contrast.interval(level)
    return int(low > 0) - int(high < 0)
