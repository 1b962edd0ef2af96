"""What a user types: the jobs, the ``mmtpp`` command and the summaries that they print."""
