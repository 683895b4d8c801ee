"""expects: rejected syntax_error world=1 — a bracket is never closed."""

def inner_steps(
