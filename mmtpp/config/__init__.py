"""Settings, each declaring what it shapes; read once, where a job starts."""
