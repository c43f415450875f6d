"""Building and searching indexes on GPUs: with FAISS where its build has them, else with PyTorch.

This is the one part of `unprompt.index` that imports PyTorch. The others import it inside functions only, when a device
is named; `device`, which decides, does when that device is a GPU, and `faiss_gpu` to ask how much memory is free
(`tests/test_architecture.py`).
"""
