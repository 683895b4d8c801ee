"""What judging costs, against a bare `torchrun` of the same file that nobody checks."""
