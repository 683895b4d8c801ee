"""What the judge and a rank say to each other: messages, frames, digests.

This is the only part of `harness` that the sandbox can see, and the only part that `env` imports.
"""
