"""Command lines of the jobs, the sweep and the tools, and the summaries that they print."""
