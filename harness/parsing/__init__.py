"""Children that look at untrusted source: each gives one answer, under limits, and runs nothing of it."""
