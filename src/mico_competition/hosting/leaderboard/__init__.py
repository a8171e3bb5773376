"""Scores of many submissions: entries, the leaderboard's site, score-all."""
