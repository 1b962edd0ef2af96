"""From events to rows of tokens: codes, templates, compression, windows, questions and packing."""
