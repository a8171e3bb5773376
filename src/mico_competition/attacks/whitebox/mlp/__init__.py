"""White-box attacks on models of the MLP family: what training left in the weights."""
