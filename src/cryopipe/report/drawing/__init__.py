"""Pictures, plots and tables of the report."""
