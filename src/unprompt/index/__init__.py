"""The library: a folder of shards, FAISS indexes and a vocabulary, described by one manifest."""
