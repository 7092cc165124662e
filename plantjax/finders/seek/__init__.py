"""`seek`, our search for strong tickets by discrete moves; SEEKER.md reports its results."""

from plantjax.finders.seek.seek import seek

__all__ = ["seek"]
