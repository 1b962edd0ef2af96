"""The event store on disk: the layout of its files, and their readers."""
