"""What the steps of a run will need, and what they used."""
