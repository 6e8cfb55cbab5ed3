"""The sequence model: a small transformer over users' histories, which adds to the chance of an entry
and to what an entry comes to what the order of a user's past says."""
