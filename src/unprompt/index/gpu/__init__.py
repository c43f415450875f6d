"""Building and searching indexes on GPUs: with FAISS where its build has them, else with PyTorch.

Nothing here is imported until a device other than "cpu" is asked for.
"""
