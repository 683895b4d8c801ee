"""Attempts to get out of a sandbox, made on decoys, and what each level of isolation has to hold.

`inside/` runs in the sandbox; everything else here is the judge's, and looks for itself.
"""
