"""Scripts that run the experiments; each also runs as `python experiments/NAME.py`."""
