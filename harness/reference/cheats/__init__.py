"""Graded cheats, put into the trusted loop: `validator power` measures which of them the comparison sees.

Each leaves out a part of the work, from nothing to all of it, in the way in which it is hardest to see:
what is left is scaled so that the gradient stays about as long as it was. No evaluation uses any of this.
A module for each place of a step at which work can be left out.
"""
