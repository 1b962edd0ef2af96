"""The evaluation as a page, figures and tables that people look at."""
