"""A store of outcomes beside a lake, updated incrementally every night."""
