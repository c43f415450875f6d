"""Predicting the sentence embedding of the prompt that made a picture, without writing the prompt.

Kaggle's "Stable Diffusion - Image to Prompts" (2023) scored the cosine of such predictions, and its winners regressed
them on image features. See `unprompt.evaluation.embedding.predict`.
"""
