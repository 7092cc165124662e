"""Scores of later papers, one per file; the registry is `plantjax.scores.SCORES`."""
