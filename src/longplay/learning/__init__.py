"""How the policy improves: reinforcement on early rewards, and its baselines."""
