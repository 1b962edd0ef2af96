"""Forecast events that have not occurred yet, and export models for other programs.

- ``predict``: the predict job for every kind of model; the actors of a language model
- ``next_event``, ``expert_next_event``, ``soft_next_event``: the event after the last one, and
  futures, by a language model, a temporal expert and a model of soft tokens
- ``expert_tables``: forecasts of an expert for all sequences of a store
- ``rejections``: marks forecasts of sequences that lost events
- ``export``: the export job
"""
