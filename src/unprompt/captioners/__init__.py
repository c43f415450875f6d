"""Captioners: models that write prompts for pictures. Importing this package imports no torch."""
