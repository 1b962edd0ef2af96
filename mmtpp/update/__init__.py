"""Models that keep up with new events: a forecaster is continued, compared and promoted.

- ``update``: the job that continues a forecaster on new events; ``update_result`` is its record.
- ``updated_model``: what it asks of a model; ``updated_expert``, ``updated_language_model`` (with
  ``language_model_checks``): the kinds, which ``updated_kinds`` chooses from.
- ``comparison``: the updated forecaster and the one before, on new test events.
- ``champion_challenge``: the registry's alias, which moves to the updated forecaster.
- ``prequential``: the job that compares ways to keep up: every period is first forecast, then
  learned. ``strategies`` are the ways, ``prequential_results`` the tables.
- ``sequence_losses``, ``target_losses``: losses of an expert and of a language model, summed by
  sequence.
"""
