"""Models from elsewhere: GGUF conversion, models in installed packages, sentence encoders."""
