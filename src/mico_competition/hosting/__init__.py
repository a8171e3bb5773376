"""Where others meet a competition: bundles for platforms, leaderboards, and the Hub."""
