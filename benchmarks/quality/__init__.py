"""The quality benchmark: tiny models on real data, compared with classical and neural models."""
