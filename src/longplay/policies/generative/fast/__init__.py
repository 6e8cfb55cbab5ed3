"""Faster inference passes that compute what Transformers computes."""
