"""Decides what value the public points games give to a text of digits, operators, brackets and blanks.

Their tokens are joined and read as a Python expression, so neighbouring digits are one number, ``**`` is a power,
``//`` a floor division, a sign may stand before an operand, and ``/`` gives a float. This reader does the same without
running text as a program, and within bounds: a power that would become huge is refused before it is computed.
"""

from __future__ import annotations

import re

Value = int | float | complex
"""What an expression is worth in Python; complex after a fractional power of a negative number."""
MAX_LENGTH = 100
"""Characters of the longest text that is read; the longest formula of the games has 42."""
MAX_BITS = 1 << 20
"""Largest size of a power in bits. With four cards only towers of powers such as 9**9**9 are larger."""

_TOKEN = re.compile(r"[1-9][0-9]*|0+|\*\*|//|[-+*/()]")


class ExpressionError(ValueError):
    """Raised when a text has no numeric value."""


class TooLargeError(ExpressionError):
    """Raised when a value is refused for its size; Python would go on computing."""


def evaluate_text(text: str) -> Value:
    """Compute the value that Python gives to a text.

    Args:
        text: Digits, ``+ - * / ( )`` and blanks.

    Returns:
        The value, of the type and with the rounding that Python gives.

    Raises:
        ExpressionError: If the text has another character or is no expression, if Python would raise when computing
            it, or if its value is no number: a bracket after an operand is a call, and a pair of empty brackets a
            tuple.
        TooLargeError: If the text has more than :data:`MAX_LENGTH` characters, or a power more than :data:`MAX_BITS`.

    >>> evaluate_text("24*1**1"), evaluate_text("3*8+3//8"), evaluate_text("8/(3-8/3)")
    (24, 24, 23.99999999999999)
    """
    if len(text) > MAX_LENGTH:
        raise TooLargeError(f"expected at most {MAX_LENGTH} characters, got {len(text)}")
    reader = _Reader(text)
    try:
        value = reader.sum()
    except (ArithmeticError, TypeError) as error:
        raise ExpressionError(f"expected an expression with a value, got {text!r}: {error}") from error
    reader.finish()
    return value


class _Reader:
    """Reads tokens from left to right and computes on the way; one method for each strength of binding."""

    def __init__(self, text: str) -> None:
        tokens = _TOKEN.findall(text)
        if "".join(tokens) != text.replace(" ", ""):
            raise ExpressionError(f"expected digits, + - * / ( ) and blanks, got {text!r}")
        self._text = text
        self._rest = tokens[::-1]

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._rest:
            raise self._misplaced()

    def sum(self) -> Value:
        """Products with ``+`` or ``-`` between them."""
        value = self._product()
        while self._next in ("+", "-"):
            sign = self._rest.pop()
            term = self._product()
            value = value + term if sign == "+" else value - term
        return value

    def _product(self) -> Value:
        """Signed operands with ``*``, ``/`` or ``//`` between them."""
        value = self._signed()
        while self._next in ("*", "/", "//"):
            operator = self._rest.pop()
            if operator == "*":
                value = value * self._signed()
            elif operator == "/":
                value = value / self._signed()
            else:
                value = value // self._signed()  # type: ignore[operator] # complex numbers raise, as they should
        return value

    def _signed(self) -> Value:
        """An operand after any number of signs; a sign binds less than a power on its right, so -2**2 is -4."""
        if self._next == "+":
            self._rest.pop()
            return +self._signed()
        if self._next == "-":
            self._rest.pop()
            return -self._signed()
        return self._power()

    def _power(self) -> Value:
        """An operand, possibly to the power of a signed operand; 2**3**2 is 2**9."""
        base = self._operand()
        if self._next != "**":
            return base
        self._rest.pop()
        return _raise_to(base, self._signed())

    def _operand(self) -> Value:
        """A number or a bracket."""
        if self._next == "(":
            self._rest.pop()
            value = self.sum()
            if self._next != ")":
                raise self._misplaced()
            self._rest.pop()
        elif self._next.isdigit():
            value = int(self._rest.pop())
        else:
            raise self._misplaced()
        return value

    @property
    def _next(self) -> str:
        """The next token; empty at the end."""
        return self._rest[-1] if self._rest else ""

    def _misplaced(self) -> ExpressionError:
        """The error for the next token."""
        return ExpressionError(f"expected another token than {self._next or 'the end'!r} in {self._text!r}")


def _raise_to(base: Value, exponent: Value) -> Value:
    """Compute a power, unless it is a whole number of more than :data:`MAX_BITS`."""
    is_whole = isinstance(base, int) and isinstance(exponent, int)
    # Powers of 1 and -1 stay small whatever the exponent, and negative exponents give floats.
    if is_whole and abs(base) > 1 and base.bit_length() * exponent > MAX_BITS:  # type: ignore[union-attr, operator]
        raise TooLargeError(f"expected a power of at most {MAX_BITS} bits, got one of a much larger number")
    return base**exponent
