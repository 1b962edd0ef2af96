"""Checks of an installation: each finding names a problem and how to fix it (``mmtpp doctor``).

``finding`` is the result of one check, ``machine`` has the checks of this machine, ``services``
those of storage, MLflow and Ray.
"""
