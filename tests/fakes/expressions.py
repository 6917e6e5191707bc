"""Conditions in Python instead of CEL, for rules that only care whether one holds."""

import re

from server.domain.expression import ExpressionError


class PlainExpressions:
    """See domain.expression.Expressions."""

    def holds(self, condition, facts, *, well=True):
        asks = "always()" in condition or "failure()" in condition
        value = self._value(condition, facts, well=well)
        return bool(value) and (asks or well)

    def fill(self, text, facts):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda m: str(self._value(m[1], facts)), text)

    def _value(self, text, facts, *, well=True):
        names = {**facts, "always": lambda: True, "success": lambda: well}
        try:
            return eval(text.strip(), {}, {**names, "failure": lambda: not well})  # noqa: S307
        except Exception as error:
            raise ExpressionError(f"{text.strip()}: {error!r}") from error


PLAIN_EXPRESSIONS = PlainExpressions()
