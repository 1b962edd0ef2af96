"""MLflow, imported nowhere else."""
