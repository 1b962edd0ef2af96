"""Speed beside other projects: same data, model, machine and run (``make bench-peers``).

Every trial is a process of its own, in the peer's environment, and prints one JSON object.

| module | content |
|---|---|
| ``run`` | the command: parts, report |
| ``bench`` | repetitions that alternate, ratios, tables |
| ``trials`` | the file of finished trials |
| ``environments`` | the peers' virtual environments, from ``NAME.txt`` |
| ``measured_process`` | arguments, result, CPU time and memory of a trial |
| ``stand_ins`` | empty modules for packages that a peer imports and does not need |
| ``training_part``, ``training_rows``, ``training_measure`` | training: trials, windows, figures |
| ``training_ours``, ``training_trainer``, ``training_trl``, ``training_llamafactory`` | the loops |
| ``feed_part``, ``feed_rows``, ``feed_columns`` | feeding: trials, rows, figures |
| ``feed_ours``, ``feed_streaming``, ``feed_datasets`` | the feeds |
| ``evaluation_part``, ``evaluation_rows``, ``evaluation_measure`` | evaluation: the same |
| ``evaluation_ours``, ``evaluation_easytpp``, ``evaluation_hotpp`` | the evaluations |
| ``sweep_part``, ``sweep_trial`` | sweeps |
"""
