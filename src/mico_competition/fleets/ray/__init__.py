"""Training fleets and computing their signals on a Ray cluster."""
