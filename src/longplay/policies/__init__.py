"""Policies: loggers with exact propensities, and a language model over semantic IDs."""
