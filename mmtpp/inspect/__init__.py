"""Figures of a data set before any GPU time is spent on it: contents, errors, compression.

- ``dataset``: raw files or an event store in memory
- ``measure``, ``split_counts``: the figures; sequences and events of each split
- ``text``, ``data_page``: the report for a terminal, and as an HTML page
"""
