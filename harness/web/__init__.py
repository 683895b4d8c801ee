"""What people and programs see over HTTP: pages, a JSON API, a feed, metrics. It decides nothing."""
