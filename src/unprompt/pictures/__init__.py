"""Pictures as files: decoding them safely, and the prompts that they carry in their own metadata."""
