"""The settings of all jobs, in one frozen tree that a job reads once, when it starts.

- ``schema``: the tree of all sections; ``section``, ``affects``: their base class, and the results
  that a setting changes
- ``data_settings``, ``model_settings``, ``training_settings``, ``optimizer_settings``,
  ``expert_settings``, ``update_settings``, ``evaluation_settings``, ``run_settings``,
  ``stream_settings``: the sections
- ``update_rules``: the table of optimisers
- ``load``, ``renamed``: from a file and ``--set`` to the tree; old names in errors
- ``job_checks``, ``stream_checks``: checks of settings that only some jobs use together
- ``fingerprint``, ``flat_settings``: names of results; settings as ``section.key``
"""
