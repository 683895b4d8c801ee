"""`validator power`: what can be left out unseen, measured with graded cheats."""
