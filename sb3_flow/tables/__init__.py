"""Sweeps of many runs (``sb3-flow sweep``) and reports of their results (``sb3-flow report``)."""
