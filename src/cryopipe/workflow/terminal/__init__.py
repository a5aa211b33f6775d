"""What a run says on the terminal: one line for each job that ends, warnings, and last what came out or what went wrong."""
