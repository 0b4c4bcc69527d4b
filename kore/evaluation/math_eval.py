"""The value of a short piece of arithmetic, in plain or LaTeX form, without running model text.

Plain text is read with Python's grammar and only numbers and arithmetic are computed; LaTeX is read by
a small parser of its own. Whatever else is in the text makes it no value.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

TOLERANCE = 1e-6
_BITS_AT_MOST = 4096
_LONGEST = 400
_LARGEST = 10**12
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}


class NoValue(ValueError):
    """The text is not arithmetic."""


def equal(said: str, key: str) -> tuple[bool, str]:
    """Whether two short answers are the same, and by which rule: text, arithmetic or LaTeX.

    Arithmetic and LaTeX values are equal within 1e-6.
    """
    said, key = said.lower().strip(), key.lower().strip()
    if said == key:
        return True, "same text"
    for read, name in ((plain_value, "same value"), (latex_value, "same value in LaTeX")):
        try:
            if abs(read(key) - read(said)) < TOLERANCE:
                return True, name
        except (NoValue, ArithmeticError, TypeError):
            continue
    return False, "not equal"


def plain_value(text: str) -> Any:
    """The value of arithmetic in Python's grammar: numbers, + - * / // % ** ^ & | ~ and brackets.

    Raises:
        NoValue: anything else, or too large to compute.
    """
    if len(text) > _LONGEST:
        raise NoValue(text[:40])
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise NoValue(text) from error
    try:
        return _compute(tree.body)
    except (ArithmeticError, TypeError, RecursionError) as error:
        raise NoValue(text) from error


def _compute(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, complex):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_compute(node.operand))
    if isinstance(node, ast.BinOp):
        left, right = _compute(node.left), _compute(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _BINARY:
            return _bounded(_BINARY[type(node.op)](left, right))
    raise NoValue(ast.dump(node)[:40])


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _BITS_AT_MOST:
        raise NoValue("too large")
    return value


def _power(base: Any, exponent: Any) -> Any:
    if (
        isinstance(base, int)
        and isinstance(exponent, int)
        and base.bit_length() * abs(exponent) > _BITS_AT_MOST
    ):
        raise NoValue("too large")
    return base**exponent


_TOKEN = re.compile(r"\s*(\\[a-z]+|\\.|\d*\.\d+|\d+|[-+*/:%^(){}\[\]])")
_SKIPPED = frozenset({"\\left", "\\right", "\\displaystyle", "\\,", "\\;", "\\!", "\\:", "\\ "})
_FRACTIONS = frozenset({"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"})
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\boxed{", "}"), ("\\mathrm{", "}"), ("\\text{", "}"))
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_TIMES = {"*": "*", "\\times": "*", "\\cdot": "*", "/": "/", ":": "/", "\\div": "/"}
_PERCENT = ("%", "\\%")


def latex_value(text: str) -> Fraction | float:
    """The value of LaTeX arithmetic: numbers, fractions, products, powers, brackets.

    Raises:
        NoValue: anything else.
    """
    if len(text) > _LONGEST:
        raise NoValue(text[:40])
    text = _undelimited(text.strip())
    if _THOUSANDS.fullmatch(text):
        return Fraction(text.replace(",", ""))
    tokens = _tokens(text.removeprefix("\\(").removesuffix("\\)"))
    reader = _Latex(tokens)
    try:
        value = reader.total()
    except (ArithmeticError, RecursionError) as error:
        raise NoValue(text) from error
    if reader.rest():
        raise NoValue(text)
    return value


def _undelimited(text: str) -> str:
    """Without the marks of mathematics, and boxes, around the whole text."""
    for start, end in _DELIMITERS:
        if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
            inner = text[len(start) : -len(end)].strip()
            if inner.count("{") == inner.count("}"):
                return _undelimited(inner)
    return text.removeprefix("\\$")


def _tokens(text: str) -> list[str]:
    tokens, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise NoValue(text)
        place = match.end()
        if match.group(1) not in _SKIPPED:
            tokens.append(match.group(1))
    if not tokens:
        raise NoValue(text)
    return tokens


class _Latex:
    """Recursive descent: total -> product -> power -> atom."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.place = 0

    def rest(self) -> list[str]:
        return self.tokens[self.place :]

    def _next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def _take(self, wanted: str | None = None) -> str:
        token = self._next()
        if not token or (wanted is not None and token != wanted):
            raise NoValue(token)
        self.place += 1
        return token

    def total(self) -> Fraction | float:
        value = self.product()
        while self._next() in ("+", "-"):
            sign = self._take()
            other = self.product()
            value = value + other if sign == "+" else value - other
        return value

    def product(self) -> Fraction | float:
        start = self.place
        value = self.signed()
        while True:
            token = self._next()
            whole = self.place == start + 1 and self.tokens[start].isdigit()
            if token in _TIMES:
                self._take()
                other = self.signed()
                value = value * other if _TIMES[token] == "*" else value / other
            elif token in _FRACTIONS and whole:
                value = value + self.power()  # a mixed number
            else:
                return value

    def signed(self) -> Fraction | float:
        if self._next() in ("+", "-"):
            return -self.signed() if self._take() == "-" else self.signed()
        return self.power()

    def power(self) -> Fraction | float:
        value = self.atom()
        while self._next() in ("^", *_PERCENT):
            if self._take() != "^":
                value = value / 100
            elif self._next() == "\\circ":
                self._take()
            else:
                value = self._raised(value)
        return value

    def _raised(self, base: Fraction | float) -> Fraction | float:
        exponent = self._after_sign() if self._next() == "-" else self.atom()
        if not (abs(float(exponent)) <= 64 and abs(float(base)) <= _LARGEST):
            raise NoValue("too large")
        if isinstance(base, Fraction):  # a small one may be as long as a large one
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(float(exponent)) > _BITS_AT_MOST:
                raise NoValue("too long")
        whole = exponent == int(exponent)
        return base ** int(exponent) if whole else float(base) ** float(exponent)

    def _after_sign(self) -> Fraction | float:
        self._take("-")
        return -self.atom()

    def atom(self) -> Fraction | float:
        token = self._take()
        if token in _FRACTIONS:
            return self._argument() / self._argument()
        if token in ("(", "{", "["):
            value = self.total()
            self._take({"(": ")", "{": "}", "[": "]"}[token])
            return value
        if token[0].isdigit() or token[0] == ".":
            return Fraction(token)
        raise NoValue(token)

    def _argument(self) -> Fraction | float:
        if self._next() != "{":
            raise NoValue(self._next())
        return self.atom()
