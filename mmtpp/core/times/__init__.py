"""Times: the tick of a clock, the calendar, and times as texts."""
