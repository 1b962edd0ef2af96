"""The event store: its layout, its reader and its frames."""
