"""Who recommends: loggers with exact propensities, and a language model over semantic IDs."""
