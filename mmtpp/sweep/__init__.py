"""Many trainings of one question: the space, the search, the trials, their report (Ray Tune)."""
