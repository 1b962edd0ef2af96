"""Command lines of the jobs, the sweep and the tools, and the summaries that they print.

- ``main``: the command ``mmtpp``; ``extras``: the optional packages that a command needs
- ``jobs``, ``run_job``, ``summary``: the table of jobs; a job from its command line; its last lines
- ``sweep_job``: ``mmtpp sweep`` and ``tune/sweep.py``
- ``convert_command``, ``doctor_command``, ``import_command``, ``inspect_command``,
  ``plan_command``, ``rollback_command``, ``scaling_command``, ``score_command``,
  ``settings_command``: one tool a module
"""
