"""Packages that are not part of the core install."""

import importlib
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """
    Import a package that only an extra installs.

    :param module: Module to import, for instance ``"ogbench"``
    :param extra: The extra of this package that installs it, for instance ``"mujoco"``
    :param purpose: What the caller needs it for; it completes the sentence "... needs ...".
    :return: The module
    :raises ImportError: If it is not installed; the message has the pip command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is installed, but one of its dependencies is not
        raise ImportError(f"{purpose} needs the package `{error.name}`: pip install 'sb3_flow[{extra}]'") from error
