"""The engine that computes signals: SQL from declarations, run by DuckDB or, translated, by Spark.

Every signal is made of five operators:

1. Daily roll-up: amounts per user (or user and key) and day (`features.py`, `event_source.py`).
2. Days in a window: bitmaps of active days, counted through a mask (`day_bits.py`).
3. First seen: days that are set with none of the n days before (`day_bits.py`).
4. Range sums: sums over a range of days around an entry (`range_sums.py`).
5. Sessions: runs of activity with gaps of at most 30 minutes (`event_source.py`).
"""
