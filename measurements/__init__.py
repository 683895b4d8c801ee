"""What it costs: each script says in its docstring what it measures. The figures: docs/performance.md."""
