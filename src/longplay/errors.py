"""Every error longplay raises on purpose.

```
LongplayError
├── ConfigError      a run.toml, a signal or an argument does not say something possible
├── DataError        rows or tables are not what a step needs (also a ValueError)
├── NotEstimable     the data cannot support the number that was asked for
└── MissingExtra     an optional dependency is not installed (also an ImportError)
```

Messages say what was given, what was expected and what to do.
"""


class LongplayError(Exception):
    """The base of every error raised on purpose; catching it catches nothing else."""


class ConfigError(LongplayError, ValueError):
    """A configuration or an argument that is invalid."""


class DataError(LongplayError, ValueError):
    """Rows or tables that are unusable for the step. Nothing was written."""


class NotEstimable(LongplayError):
    """The data cannot support the number that was asked for; the message is the reason."""


class MissingExtra(LongplayError, ImportError):
    """An optional dependency is missing; the message holds the pip line."""
