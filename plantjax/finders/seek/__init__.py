"""`seek`, our search for strong tickets by discrete moves; SEEKER.md tells how well it does."""

from plantjax.finders.seek.seek import seek

__all__ = ["seek"]
