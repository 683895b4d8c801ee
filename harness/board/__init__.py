"""The leaderboard: submissions, their queue, what became of them, who leads. The judge does not know it."""
