"""Checks of a simulator that is not longplay's: it is lived in under a probe, and rules are tried on what it
left."""
