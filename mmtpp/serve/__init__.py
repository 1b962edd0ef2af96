"""Forecasts of live sequences: events come in one by one, and forecasts are asked for at any time.

- ``live_events``: new events as clients write them, checked and converted
- ``event_log``: the accepted events of all sequences, in one SQLite file
- ``live_model``, ``build_live_model``: a model that forecasts sequences of the log, and how it is
  built from a forecaster
- ``live_expert``, ``expert_states``: an expert, with its states of the sequences
- ``live_language_model``: language models, with the keys and values of the histories they have read
- ``drift_watch``: how far new events are from the forecasts before them
- ``live_sequences``: the log and the model together: append, forecast, replace the model
- ``forecast_json``: forecasts as JSON
- ``score``: lines of events to lines of forecasts, without a server
- ``app``, ``shard``, ``gateway``, ``guards``: the Ray Serve application
- ``shard_requests``: what the gateway asks of a shard
- ``settings``: arguments of the application
"""
