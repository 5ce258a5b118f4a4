"""Base classes and tools of all algorithms. This package does not import any algorithm."""
