"""Paths that name parts of what they lead to: ``PATH#KEY,KEY``."""

from __future__ import annotations


def split_parts(source: str) -> tuple[str, list[str]]:
    """
    :param source: A path, with or without ``#`` and keys
    :return: The path, and the keys
    """
    path, _, keys = source.partition("#")
    return path, [key.strip() for key in keys.split(",") if key.strip()]
