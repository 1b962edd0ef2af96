"""Checks of an installation: each finding names a problem and how to fix it (``mmtpp doctor``)."""
