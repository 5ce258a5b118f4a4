"""Trajectories of several robots at once: how they are written, what they must keep to, and a solver that makes them do so."""
