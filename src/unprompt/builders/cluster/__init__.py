"""Building a library with a Ray cluster: the same algorithm, whose decoding, encoding and indexing run in tasks."""
