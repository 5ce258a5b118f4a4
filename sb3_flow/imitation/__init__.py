"""Imitation of demonstrations: what streaming flow policies and chunk policies share."""
