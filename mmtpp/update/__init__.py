"""Models that keep up with new events: an expert is continued, compared and promoted.

- ``update``: the job that continues an expert on new events; ``champion`` decides whether the
  registry's alias moves to it, and moves it back.
- ``prequential``: the job that compares ways to keep up: every period is first forecast, then
  learned. ``strategies`` are the ways, ``prequential_results`` the tables.
- ``sequence_losses``: losses of an expert, summed by sequence.
"""
