"""Evaluation: metrics by name, splits and leak checks, bootstrap intervals, and the run and report that join them."""
