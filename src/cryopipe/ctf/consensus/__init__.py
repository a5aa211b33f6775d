"""What several estimators agree on, and the row that goes on."""
