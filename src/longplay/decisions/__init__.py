"""What a policy sees and shows: contexts in, slates with exact log-probabilities out."""

from longplay.decisions.contexts import HISTORY_COLUMNS, Contexts, check_exclude
from longplay.decisions.drawing import context_chance, outside
from longplay.decisions.exclusion_rules import check_rule, rule_words
from longplay.decisions.from_log import contexts_at, contexts_from_log, first_engagements
from longplay.decisions.frozen import Frozen
from longplay.decisions.learners import (
    OPE_SHARE,
    learners_events,
    learners_histories,
    of_learners,
    ope_users,
)
from longplay.decisions.protocols import (
    DEFAULT_SLOTS,
    Adaptive,
    Catalogued,
    MayShowFewer,
    Policy,
    Ranker,
    ReadsShowings,
    ReadsUsers,
    Slated,
    Trained,
    as_read,
    index_of,
    reads_users,
    rules_of,
    showings_of,
    shows_fewer,
    slots_of,
)
from longplay.decisions.showings import asked_surfaces, is_asked, shown_before
from longplay.decisions.slates import Decisions, check_one_each, main_surface

__all__ = [
    "HISTORY_COLUMNS",
    "DEFAULT_SLOTS",
    "OPE_SHARE",
    "Adaptive",
    "Catalogued",
    "Contexts",
    "Decisions",
    "Frozen",
    "MayShowFewer",
    "Policy",
    "Ranker",
    "ReadsShowings",
    "ReadsUsers",
    "Slated",
    "Trained",
    "as_read",
    "asked_surfaces",
    "is_asked",
    "check_exclude",
    "check_one_each",
    "check_rule",
    "context_chance",
    "contexts_at",
    "contexts_from_log",
    "first_engagements",
    "ope_users",
    "index_of",
    "learners_events",
    "learners_histories",
    "main_surface",
    "of_learners",
    "outside",
    "reads_users",
    "rule_words",
    "rules_of",
    "shown_before",
    "showings_of",
    "shows_fewer",
    "slots_of",
]
