"""The settings of all jobs, in one frozen tree that a job reads once, when it starts."""
