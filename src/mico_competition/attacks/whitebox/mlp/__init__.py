"""White-box attacks on models of the MLP family, from traces of training in the weights."""
