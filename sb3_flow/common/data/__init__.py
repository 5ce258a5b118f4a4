"""Datasets and replay buffers: containers, checks and batches."""
