"""Answers of queries as tables for other tools: Arrow, pandas, polars.

rows = await db.rows("[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]")
rows.columns                     # ("n", "a")
rows.to_arrow()                  # needs pyarrow: pip install natalog[frames]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast, overload
from uuid import UUID

from natalog.core.edn import read, write
from natalog.core.errors import ReadError
from natalog.core.values import Keyword, Symbol, sort_key

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Row = tuple[Any, ...]


class Rows(Sequence[Row]):
    """Rows with named columns, in the order of the answer; of an unordered one by value."""

    def __init__(self, columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
        self.columns = tuple(columns)
        self._rows = [tuple(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        return self._rows[place]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"Rows({', '.join(self.columns)}: {len(self)} rows)"

    def to_dicts(self) -> list[dict[str, Any]]:
        """A dict for each row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]

    def to_arrow(self) -> pa.Table:
        """A `pyarrow.Table`.

        Integers, floats, booleans, texts, bytes and decimals keep their type, instants are
        timestamps in milliseconds (UTC).  Keywords, symbols and UUIDs become text, and so does a
        column of several types, as EDN.
        """
        _need("pyarrow")
        import pyarrow

        instant = pyarrow.timestamp("ms", tz="UTC")
        columns = []
        for place in range(len(self.columns)):
            values, is_instant = _column([row[place] for row in self._rows])
            columns.append(pyarrow.array(values, type=instant if is_instant else None))
        return pyarrow.Table.from_arrays(columns, names=list(self.columns))

    def to_pandas(self) -> pd.DataFrame:
        """A `pandas.DataFrame`, by way of Arrow."""
        _need("pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """A `polars.DataFrame`, by way of Arrow."""
        _need("polars")
        import polars

        return cast("pl.DataFrame", polars.from_arrow(self.to_arrow()))


def _need(package: str) -> None:
    if find_spec(package) is None:
        message = f"a table of this kind needs {package}: pip install {package}"
        raise ModuleNotFoundError(message, name=package)


def _text(value: Any) -> Any:
    return None if value is None else str(value)


def _edn(value: Any) -> Any:
    return None if value is None else value if isinstance(value, str) else write(value)


_KEPT = frozenset({bool, float, str, bytes, datetime, Decimal})
_LONG = range(-(2**63), 2**63)


def _column(values: list[Any]) -> tuple[list[Any], bool]:
    """The values as Arrow takes them, and whether they are instants."""
    kinds = {type(value) for value in values if value is not None}
    form: Callable[[Any], Any] | None = _edn
    if len(kinds) <= 1:
        kind = next(iter(kinds), str)
        if kind is int:
            form = None if all(v is None or v in _LONG for v in values) else _text
        elif kind in _KEPT:
            form = None
        elif kind in (Keyword, Symbol, UUID, Fraction):
            form = _text
    return (values if form is None else [form(v) for v in values]), kinds == {datetime}


def rows_of(query: Any, answer: Any) -> Rows:
    """The answer of a query as rows; a single value or tuple is one row."""
    if isinstance(answer, list) and answer and isinstance(answer[0], Mapping):
        names = [str(getattr(key, "text", key)) for key in answer[0]]
        return Rows(names, [tuple(one.values()) for one in answer])
    found: list[Any]
    if isinstance(answer, Set):
        found = sorted(answer, key=sort_key)
    elif isinstance(answer, list):
        found = [row if isinstance(row, tuple) else (row,) for row in answer]
    elif isinstance(answer, tuple):
        found = [answer]
    else:
        found = [] if answer is None else [(answer,)]
    columns = find_columns(query, len(found[0]) if found else None)
    return Rows([name.removeprefix("?") for name in columns], found)


def find_columns(query: Any, width: int | None = None) -> list[str]:
    """Headings for the columns of an answer, from the ``:find`` clause; numbered if it is odd.

    >>> find_columns("[:find ?n (count ?e) :where [?e :name ?n]]", 2)
    ['?n', '(count ?e)']
    """
    try:
        found = _find_clause(read(query) if isinstance(query, str) else query)
    except (ReadError, TypeError, ValueError, KeyError):
        found = []
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    names = [write(item) for item in found]
    names = [name for name in names if name not in (".", "...")]
    if width is None or len(names) == width:
        return names
    return [f"column {n}" for n in range(1, width + 1)]


def _find_clause(form: Any) -> list[Any]:
    if isinstance(form, dict):
        return list(form[Keyword("find")])
    clause: list[Any] = []
    start = list(form).index(Keyword("find")) + 1
    for item in list(form)[start:]:
        if isinstance(item, Keyword):
            break
        clause.append(item)
    return clause


__all__ = ["Rows", "find_columns", "rows_of"]
