"""Graded cheats, put into the trusted loop: `validator power` measures which of them the comparison sees.

Each leaves out a part of the work, from nothing to all of it, in a way that is hard to see: where tokens or
small gradients are left out, the rest is scaled so that the gradient stays about as long as it was; what
rounding loses of a gradient goes into the next one. A cheat that finds nothing to leave out fails, or it
would count as one that nobody finds. An evaluation trains none of them; it takes their directions
(`reference/filters.py`). A module for each place of a step at which work can be left out.
"""
