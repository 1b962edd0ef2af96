"""Event stores in the formats of other projects."""
