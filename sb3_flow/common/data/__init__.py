"""Datasets and replay buffers: containers, checks, and the batches that are drawn from them."""
