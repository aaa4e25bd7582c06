"""JSON from strangers and from people: no NaN, no infinity, no key twice, and errors that say where."""

import json
import math
import re
from itertools import islice

SHOWN = 5  # places of one token in a message
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[^\s,:\[\]{}]+')


def parse(text, error):
    """Parse a JSON object.

    Parameters
    ----------
    text : str
    error : type
        Class of the exception to raise.

    Returns
    -------
    dict

    Raises
    ------
    error
        If the text is not one JSON object, holds a number that is not finite (``NaN``, ``1e400``), a key
        twice in one object, or brackets nested too deeply. Names the line where it can.
    """

    def refuse(number):
        raise error(f"{_lines(text, number)}expected finite numbers, found {number:.40}")

    def finite(digits):
        return float(digits) if math.isfinite(float(digits)) else refuse(digits)

    def unique(pairs):
        found = {}
        for key, value in pairs:
            if key in found:
                place = _lines(text, f'"{key}"')
                raise error(f"{place}expected each key once, found {key!r:.60} twice in one object")
            found[key] = value
        return found

    try:
        tree = json.loads(text, parse_constant=refuse, parse_float=finite, object_pairs_hook=unique)
    except json.JSONDecodeError as reason:
        raise error(_where(text, reason)) from None
    except RecursionError:
        raise error("expected JSON, found brackets nested too deeply") from None
    except ValueError as reason:
        if isinstance(reason, error):
            raise
        raise error(f"expected JSON: {reason!s:.80}") from None  # an integer of thousands of digits
    if not isinstance(tree, dict):
        raise error(f"expected a JSON object, found a {type(tree).__name__}")
    return tree


def _lines(text, token):
    """Where a token stands, as ``line 3: `` or ``lines 3, 5: ``; empty where it is spelled otherwise."""
    starts = list(islice((m.start() for m in TOKEN.finditer(text) if m.group() == token), SHOWN + 1))
    lines = sorted({text.count("\n", 0, start) + 1 for start in starts[:SHOWN]})
    more = " ..." if len(starts) > SHOWN else ""
    return f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}{more}: " if lines else ""


def _where(text, reason):
    """What is wrong and in which line; a trailing comma by name."""
    before = text[: reason.pos + 1].rstrip("]} \t\r\n")
    after = text[len(before) :].lstrip()
    if before.endswith(",") and after[:1] in ("]", "}"):
        return f"line {before.count(chr(10)) + 1}: trailing comma; remove it"
    return f"line {reason.lineno}, column {reason.colno}: expected JSON ({reason.msg})"
