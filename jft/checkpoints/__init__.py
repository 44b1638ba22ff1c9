"""A model on disk: which one a path means, where it lies, reading, writing, and its tokenizer."""
