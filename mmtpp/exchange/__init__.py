"""Event stores written in the formats of other projects (``mmtpp convert``)."""
