"""What code written for Stable-Baselines3 relies on, shown for every algorithm of the package."""
