"""Forecast events that have not occurred yet, and export models for other programs.

- ``predict``: the predict job for every kind of model
- ``forecast_tables``, ``forecast_files``: forecasts as tables, where the kinds of models part, and
  the files of forecasts
- ``next_event``, ``expert_next_event``, ``soft_next_event``: the event after the last one, and
  futures, by a language model, a temporal expert and a model of soft tokens
- ``next_event_actor``: the Ray actor that holds a language model
- ``expert_tables``: forecasts of an expert for all sequences of a store
- ``rejections``: marks forecasts of sequences that lost events
- ``export``: the export job
"""
