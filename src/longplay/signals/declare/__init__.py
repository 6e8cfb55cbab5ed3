"""The declaration of a signal: entry, measure, window, and the sentence that they mean."""
