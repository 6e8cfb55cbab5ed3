"""Result of the stage `reward`: early rewards compared, and their calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.results.record import NotEstimable, StageResult, flattened


@dataclass(frozen=True)
class EntryCounts:
    """Number of entries and of mature entries."""

    entries: int
    mature: int


@dataclass(frozen=True)
class ModelScore:
    """A model of early rewards on later entries; see `rewards.calibration.compare`.

    Attributes:
        model: its name, or `prior alone`.
        entries: judged.
        loss: mean log loss of a binary outcome, else mean squared error.
        loss_se: its standard error, null where it is not known.
        rmse: root mean squared error.
        concordance: chance that the larger outcome had the larger belief, null where all are equal.
        difference: of the loss to that of the prior alone; negative is better.
        difference_se: its standard error, null where it is not known.
        item_mae: mean absolute error over items, null where no item has enough entries.
        items: how many these are.
    """

    model: str
    entries: int
    loss: float
    loss_se: float | None
    rmse: float
    concordance: float | None
    difference: float
    difference_se: float | None
    item_mae: float | None
    items: int


@dataclass(frozen=True)
class ReliabilityBin:
    """Predicted against realised means of one bin of beliefs.

    Attributes:
        predicted: mean belief.
        realised: mean outcome.
        std_error: of the mean outcome.
        n: entries.
    """

    predicted: float
    realised: float
    std_error: float
    n: int


@dataclass(frozen=True)
class CalibrationFigures:
    """Calibration of beliefs on unseen items; see `belief.Calibration`.

    Attributes:
        coverage: share of items inside the interval, by its level.
        groups: items judged.
        min_entries: entries that each had at least.
        pit: counts of probability integral transforms in ten equal bins.
        reliability: bins of belief.
        mae: mean absolute error of the items' means.
        prior_mae: the same of the prior alone.
        sharpness: mean std of the items' means.
        prior_sharpness: the same of the prior alone.
    """

    coverage: Mapping[str, float]
    groups: int
    min_entries: int
    pit: tuple[int, ...]
    reliability: tuple[ReliabilityBin, ...]
    mae: float
    prior_mae: float
    sharpness: float
    prior_sharpness: float


@dataclass(frozen=True)
class ItemBelief:
    """The belief about an item or creator.

    Attributes:
        key: its id.
        entries: known entries.
        mean: expected outcome.
        std: how unsure the model is of it.
        title: in words, null where the catalogue has none.
    """

    key: str
    entries: int
    mean: float
    std: float
    title: str | None


@dataclass(frozen=True)
class PartWorth:
    """What a part of the chance of an entry is worth; see `rewards.showing_check`.

    Attributes:
        gain: what the best slot of a slate comes to, beyond the best by the model without the part.
        gain_se: its standard error, by user.
        usual: what a usual slot of these slates comes to.
    """

    gain: float
    gain_se: float | None
    usual: float


@dataclass(frozen=True)
class ShowingFigures:
    """The chance of an entry where something is shown.

    Attributes:
        surface: on which most of the slots that taught were shown.
        slots: that taught.
        judged: slates of held-out users that it is judged on.
        weights: on the log odds of an entry, by feature.
        reliability: bins of predicted chances; empty where too few slates are judged.
        parts: what each part is worth; empty where too few slates are judged.
    """

    surface: str
    slots: int
    judged: int
    weights: Mapping[str, float]
    reliability: tuple[ReliabilityBin, ...]
    parts: Mapping[str, PartWorth]


@dataclass(frozen=True)
class PickedSlots:
    """What the slots that a model ranks first came to.

    Attributes:
        mean: outcome per slot, 0 where no entry followed.
        mean_se: its standard error by user, null where it is not known.
        difference: to the slots that the chosen model ranks first; positive is better than chosen.
        difference_se: its standard error by user, null where it is not known.
    """

    mean: float
    mean_se: float | None
    difference: float
    difference_se: float | None


@dataclass(frozen=True)
class SlotScore:
    """A model's value of showing on slots of held-out users; see `rewards.value_check`.

    Attributes:
        model: its name.
        top: the tenth of all slots that it values most.
        best: the slot of each slate that it values most.
    """

    model: str
    top: PickedSlots
    best: PickedSlots


@dataclass(frozen=True)
class ValueFigures:
    """The models' values of showing on slots of held-out users.

    Attributes:
        slots: that are judged: mature, and of creators who were new to the user.
        slates: that they stand in.
        users: to whom they were shown.
        usual: outcome per slot.
        scores: of every model.
    """

    slots: int
    slates: int
    users: int
    usual: float
    scores: tuple[SlotScore, ...]


@dataclass(frozen=True)
class EarlyRewardFigures:
    """The early reward of one signal.

    Attributes:
        label: of the signal.
        chosen: the model that pays.
        age: days of an entry's window that beliefs have seen when they are judged.
        known: entries that the models were fitted on.
        later: entries that they are judged on.
        learnt: what the chosen model learnt, in words.
        association: whether the reward is an association and not an effect of showing.
        comparison: the models flattened each other; empty where nothing came later.
        calibration: by model.
        beliefs: the items believed in most, then those believed in least.
        showing: the chance of an entry; null where the log had no decisions.
        values: the models' values of showing; null where they cannot be judged.
    """

    label: str
    chosen: str
    age: int
    known: EntryCounts
    later: EntryCounts
    learnt: str
    association: bool
    comparison: tuple[ModelScore, ...]
    calibration: Mapping[str, CalibrationFigures | NotEstimable]
    beliefs: tuple[ItemBelief, ...]
    showing: ShowingFigures | None
    values: ValueFigures | None


@dataclass(frozen=True)
class RewardResult(StageResult, stage="reward"):
    """The early reward of every objective by name."""

    signals: Mapping[str, EarlyRewardFigures] = flattened()
