"""Mutation testing of the judge: small edits that tests have to notice (`make mutants`).

`targets.toml` says which sources are edited and which tests have to notice, `equivalent.toml` which
edits change nothing. cosmic-ray makes the edits, `edits.py` adds those that people make and that it
does not. A fork server (`forks.py`) serves an edited module from memory, so that nothing on disk is
ever touched, to the tests that reach the edited line (`reach.py`).
"""
