"""Where a library can be searched: its own folder, Milvus, PostgreSQL with pgvector."""
