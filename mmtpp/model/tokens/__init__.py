"""The tokens of a model: the backbone's tokenizer, byte tokens, markers and chat roles."""
