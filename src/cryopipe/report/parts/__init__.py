"""What the sections of the report are made of where one module would be too long."""
