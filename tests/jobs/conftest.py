"""Scripts' settings of JAX, and their compiled programs, stay with the tests of one file."""

from scripting import cache

__all__ = ["cache"]
