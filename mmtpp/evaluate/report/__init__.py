"""The result of an evaluation for people: a page with figures and tables."""
