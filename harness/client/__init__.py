"""Talks to a leaderboard's server over its JSON API, and does not trust what it answers."""

from harness.client.calls import RemoteEvent, RemoteStatus, status_of, submit_to
from harness.client.news import news, turn

__all__ = ["RemoteEvent", "RemoteStatus", "news", "status_of", "submit_to", "turn"]
