"""Rules of exclusions: a policy is deployed under the rule that it was trained under."""

from __future__ import annotations

from longplay.decisions.contexts import Contexts
from longplay.errors import ConfigError


def rule_words(policy: str, trained: str, deployed: str) -> str:
    """Warning that a policy is deployed under another rule of exclusions than that of its training,
    and what to do."""
    return (
        f"{policy} was trained under exclude={trained!r} and is deployed under "
        f"exclude={deployed!r}: it learned what to show where other items "
        "could be shown, so its value here can be quite another"
    )


def check_rule(policy: str, trained: str, allowed: str | None, contexts: Contexts) -> None:
    """Raise where contexts state another rule of exclusions than that of a policy's training.

    Args:
        policy: its name.
        trained: its rule.
        allowed: one more rule that it may be deployed under.
        contexts: what the policy is asked to decide.

    Raises:
        ConfigError: some contexts state a rule that is neither.
    """
    stated = contexts.frame["exclusion_rule"].drop_nulls().unique().sort().to_list()
    for rule in stated:
        if rule not in (trained, allowed):
            raise ConfigError(
                f"{rule_words(policy, trained, rule)}; make the contexts (or the world) with "
                f"exclude={trained!r}, train with exclude={rule!r}, "
                f"or say that it is meant: policy.under({rule!r})"
            )
