"""Joint trajectories of several robots: their representation, their constraints, and a solver that enforces these."""
