"""Expert for Push-T: it searches for a good push in a copy of the simulator, and executes it in the environment."""
