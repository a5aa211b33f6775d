"""Formulas of derived parameters and of costs. The text that documents them is evaluated, so the two cannot differ."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from cryopipe.errors import ConfigError

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "max": max,
    "min": min,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "clip": lambda value, low, high: min(max(value, low), high),
    "given": lambda value, otherwise: otherwise if value is None else value,
}


def evaluate(formula: str, names: Mapping[str, Any]) -> Any:
    """Evaluate arithmetic over ``names``: ``1.5 * dataset.particle_diameter_A``, ``clip(...)``, ``max(...)``, a bare name.

    Parameters
    ----------
    formula : str
        Numbers, + - * / **, names and their attributes, and the functions max, min, ceil, sqrt, clip(value, low, high) and
        given(value, replacement if the value is null).
    names : mapping
        Value of each bare name, or of the first part of each dotted name.

    Raises
    ------
    ConfigError
        The text is not such a formula, or a fact in it has no value.
    """
    try:
        return _value(ast.parse(formula, mode="eval").body, names)
    except (SyntaxError, TypeError, KeyError, AttributeError, ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"the formula '{formula}' of a parameter or a cost cannot be computed: {error}. Give the parameter a value."
        ) from error


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=float() | int() as number):
            return number
        case ast.Name(id=name):
            return names[name]
        case ast.Attribute(value=ast.Name(id=head), attr=name):
            return getattr(names[head], name)
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _FUNCTIONS[name](*(_value(argument, names) for argument in arguments))
    raise SyntaxError(f"{ast.unparse(node)} is not part of a formula")
