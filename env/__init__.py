"""The environment inside the sandbox, beside untrusted code. The judge believes nothing it says.

Of `harness` it imports `harness.protocol` alone: that is all a sandbox can see of the judge.
"""
