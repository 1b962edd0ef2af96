"""The folder of a model: its files, its record of template and tasks, its kind and its card."""
