"""The rewards of longplay in other trainers: TRL and verl."""
