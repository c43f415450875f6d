"""Building libraries: sources are read, pictures decoded in worker processes, encoded, and written as shards."""
