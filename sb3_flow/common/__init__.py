"""What every algorithm stands on; it knows no algorithm."""
