"""What iterative methods share: half sets, what they exchange, how far the next search goes."""
