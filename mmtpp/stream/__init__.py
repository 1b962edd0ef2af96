"""Land events that arrive over time, exactly once and in order, and pass them to a live service.

- ``stream_job``: the job, from the settings to the result
- ``stream_loop``: read, hold, commit, deliver, until the job is stopped
- ``arrivals``: what a source gives to the loop; ``event_parser``: files and messages to events
- ``folder_source``, ``kafka_source``, ``kafka_client``: the two kinds of input
- ``source_positions``: what has been read of a source
- ``intake``, ``held_events``, ``watermark``: events between their arrival and their release
- ``commit_record``, ``output_folder``, ``output_lock``: commits, recovery, one job per output
- ``landed_events``: the columns of landed events, and the settings that read them
- ``service_delivery``, ``service_client``: landed events as requests to a live service
- ``stop_signal``: SIGTERM and Ctrl-C end the job after a commit
"""
