"""Expressions in configurations, as arithmetic: what stands in `${eval:'...'}` is computed, never run.

MatterGen registers Python's `eval` under that name, so a configuration received from somebody else could run anything.
Its own settings need four kinds: `1 / N`, `512 // a // b`, `(1 + len({...})) * d` and `"mask" == "mask" and True`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from mattergen_e.errors import UserError

#: Longer texts, and larger numbers, are no sizes of a network.
LONGEST = 100_000
LARGEST = 1e15

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (len, int, float, min, max, abs, round)
}


def replace_eval() -> None:
    """Puts `compute` in the place of MatterGen's `eval` in configurations; does nothing harmful the second time."""
    import mattergen.common.utils.globals  # noqa: F401  (registers the one to be replaced)
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("eval", compute, replace=True)


def compute(text: Any) -> Any:
    """The value of an arithmetic expression.

    Args:
        text: Numbers, texts, lists and dictionaries written out, `+ - * / // %`, comparisons, `and`, `or`, `not`,
            `a if b else c`, and `len`, `int`, `float`, `min`, `max`, `abs`, `round`.

    Raises:
        UserError: If it is anything else.
    """
    shown = str(text)[:80]
    if len(str(text)) > LONGEST:
        raise UserError(f"the expression '{shown}...' in a configuration is too long.")
    try:
        return _value(ast.parse(str(text).strip(), mode="eval").body)
    except UserError as error:
        raise UserError(
            f"the expression '{shown}' in a configuration is not arithmetic ({error}): only numbers, comparisons and "
            "lengths are computed there."
        ) from None
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UserError(f"the expression '{shown}' in a configuration cannot be computed: {error}.") from None


def _value(node: ast.expr) -> Any:
    """The value of one piece of an expression."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_number(left), _number(right)))
        case ast.BoolOp(op=op, values=values):
            return _either(values, stop=isinstance(op, ast.Or))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](_value(left), _value(right))
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body) if _value(test) else _value(other)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*[_value(argument) for argument in args])
    raise UserError(f"'{ast.unparse(node)[:40]}'")


def _key(node: ast.expr | None) -> Any:
    if node is None:
        raise UserError("'**'")
    return _value(node)


def _number(node: ast.expr) -> Any:
    """A number: texts and lists are not added or repeated."""
    value = _value(node)
    if not isinstance(value, int | float):
        raise UserError(f"'{ast.unparse(node)[:40]}' is not a number")
    return _bounded(value)


def _bounded(value: Any) -> Any:
    if abs(value) > LARGEST:
        raise UserError(f"{value:.3g} is too large")
    return value


def _either(values: list[ast.expr], stop: bool) -> Any:
    """`and` and `or` as Python has them: the value that decides."""
    found = None
    for item in values:
        found = _value(item)
        if bool(found) is stop:
            return found
    return found
