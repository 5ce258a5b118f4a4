"""
Values of hyperparameters that are written as text, such as ``dict(net_arch=[64, 64], activation_fn=nn.ReLU)``.

RL Zoo evaluates such text as Python. Here it is parsed, and no code is run.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import stable_baselines3
import torch as th
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn, optim

from sb3_flow.common.checkpoints.plain import class_named

#: Functions that may be called.
CALLS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (bool, dict, float, frozenset, int, list, set, str, tuple)
}
#: Words that are values.
WORDS: dict[str, Any] = {
    "HerReplayBuffer": stable_baselines3.HerReplayBuffer,
    "RMSpropTFLike": RMSpropTFLike,
    **{f"{module}.{name}": float(name) for module in ("math", "np", "numpy") for name in ("inf", "nan")},
}
#: Modules whose classes may be named.
MODULES: dict[str, Any] = {"nn": nn, "th.nn": nn, "torch.nn": nn, "th.optim": optim, "torch.optim": optim}
OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
SIGNS: dict[type[ast.AST], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Not: operator.not_}
#: Limit of numbers in a product or power, so that a short text does not fill the memory.
LIMIT = 1e4


class NotAValue(ValueError):
    """A text is not a value."""


def parse_value(text: str, *_: Any) -> Any:
    """
    Parse a value.

    :param text: Numbers (also with ``+ - * / **``), text in quotes, ``True``, ``False``, ``None``; lists, tuples, sets and
        dictionaries, also as ``dict(...)``; classes such as ``nn.ReLU``, ``torch.optim.AdamW`` or
        ``stable_baselines3.common.torch_layers.NatureCNN``
    :return: The value
    :raises NotAValue: If it is something else, such as another expression of Python.
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise NotAValue(
            f"{text!r} is not a value ({error}). Expected numbers, text in quotes, lists, dictionaries, dict(...), or classes "
            "such as nn.ReLU. Text is not run as Python."
        ) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)](map(_value, node.elts))
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError("`**` is not supported")
        return {_value(key): _value(item) for key, item in zip(node.keys, node.values, strict=True) if key is not None}
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.UnaryOp) and type(node.op) in SIGNS:
        return SIGNS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return _number(node.op, _value(node.left), _value(node.right))
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(ast.unparse(node))
    raise ValueError(f"`{ast.unparse(node)}` is not supported")


def _call(node: ast.Call) -> Any:
    name = ast.unparse(node.func)
    if name not in CALLS or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(f"`{ast.unparse(node)}` is not supported")
    keywords = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    return CALLS[name](*map(_value, node.args), **keywords)


def _number(sign: ast.operator, left: Any, right: Any) -> Any:
    repeated = isinstance(sign, ast.Mult) and isinstance(left, list | tuple) and isinstance(right, int)
    if not (repeated or (isinstance(left, int | float) and isinstance(right, int | float))):
        raise ValueError("only numbers can be calculated with")
    if (isinstance(sign, ast.Pow) and max(abs(left), abs(right)) > LIMIT) or (repeated and right * len(left) > LIMIT):
        raise ValueError(f"numbers above {LIMIT:.0f} are not supported here")
    return OPERATORS[type(sign)](left, right)


def _named(name: str) -> Any:
    if name in WORDS:
        return WORDS[name]
    module, _, attribute = name.rpartition(".")
    found = getattr(MODULES.get(module, th if module in ("th", "torch") else None), attribute, None)
    if isinstance(found, th.dtype) or (isinstance(found, type) and issubclass(found, nn.Module | optim.Optimizer)):
        return found
    return class_named(name)
