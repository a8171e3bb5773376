"""What others may see of trained models, the search for leaks, and commitments."""
