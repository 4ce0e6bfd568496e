"""The error tree: complete, documented, and the same on both sides of the wire."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest

from natalog.core.codec import pack, unpack
from natalog.core.errors import NatalogError, error_classes, error_from_wire
from natalog.core.values import Keyword

ROOT = Path(__file__).resolve().parents[2]
DATA = {
    "attribute": Keyword("person/name"),
    "value": (1, 1.5, None, "text", Decimal("1.5")),
    "entities": [1, 2, 3],
    "at": datetime(2020, 1, 1, tzinfo=UTC),
    "commit": UUID(int=7),
    "nested": {Keyword("a"): {"b": [True, b"bytes"]}},
}


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errors_doc", ROOT / "tools" / "errors_doc.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORE = tool().core_classes()
TEXT = tool().text()


def test_the_catalogue_is_up_to_date() -> None:
    written = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert written == TEXT, "run make docs"


def test_codes_are_unique_and_lead_to_their_class() -> None:
    assert len({error.code for error in CORE}) == len(CORE)
    assert all(error_classes()[error.code] is error for error in CORE)


@pytest.mark.parametrize("error", CORE, ids=lambda error: error.code)
def test_every_class_says_what_it_means(error: type[NatalogError]) -> None:
    assert error.__dict__.get("__doc__"), error
    assert error.default_type is not None or error is NatalogError
    assert f"`{error.code}`" in TEXT


@pytest.mark.parametrize("error", CORE, ids=lambda error: error.code)
def test_every_error_survives_the_wire(error: type[NatalogError]) -> None:
    made = error("A sentence about ünïcode.", **DATA)
    back = error_from_wire(unpack(pack(made.to_wire())))
    assert type(back) is error
    assert (back.code, back.type, back.message) == (made.code, made.type, made.message)
    assert pack(back.data) == pack(made.data)
    assert str(back) == made.message


def test_a_type_of_its_own_survives_the_wire() -> None:
    made = NatalogError("No.", type="custom/type", x=1)
    assert error_from_wire(unpack(pack(made.to_wire()))).type == "custom/type"


def test_an_unknown_code_is_kept() -> None:
    body = {"code": "FromTheFuture", "error": "future/x", "message": "New.", "data": {"a": 1}}
    found = error_from_wire(body)
    assert type(found) is NatalogError
    assert found.data == {"a": 1, "code": "FromTheFuture"}
    assert found.type == "future/x"


@pytest.mark.parametrize("body", [{}, {"data": 7}, {"code": None, "message": None}])
def test_a_malformed_error_body_is_still_an_error(body: dict[str, object]) -> None:
    assert isinstance(error_from_wire(body), NatalogError)
