"""OFA, which answers "what does the image describe?". Importing this package imports no torch."""
