"""The timed part of an evaluation: the talk with the ranks, the judge's clock, the work folder."""
