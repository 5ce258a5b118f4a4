"""Imitation of demonstrations: the base of streaming flow policies and chunk policies."""
