"""Outcomes: in memory, in files, per enrolled user, day by day, and compared between two versions of
a signal."""
