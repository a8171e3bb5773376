"""The leaderboard: scores submissions into entries, and builds a static site of them."""
