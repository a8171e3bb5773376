"""What a competition is: its table, its splits, what lies where, and submissions."""
