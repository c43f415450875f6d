"""What captioners learn from: pairs of picture and prompt, their splits, and augmented views."""
