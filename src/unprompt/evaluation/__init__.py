"""Evaluation: metrics by name, splits that keep near duplicates together, leak checks and bootstrap intervals."""
