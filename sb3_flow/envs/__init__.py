"""Gymnasium environments and wrappers of our own."""
