"""The Push-T expert: it looks for a good push in a copy of the simulator, and executes it in the environment."""
