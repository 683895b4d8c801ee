"""Challenges whose references were trained ahead: what an evaluation takes needs no training afterwards.

A banked challenge is worth as much as a fresh one (docs/protocol.md says why): nobody but the judge has
seen it, and it is used once.
"""
