"""What was handed in: a train file as bytes, as facts of its syntax tree, as a strategy.

It is never executed here.
"""
