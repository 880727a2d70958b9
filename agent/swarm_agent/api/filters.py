"""The `filters` parameter of list requests.

JSON in one of two forms, `{"name": {"web": true}}` or the old `{"name": ["web"]}`. All filters must match, any value of
one filter is enough. Label filters are KEY or KEY=VALUE, and all of them must match.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from swarm_agent.model.base import read_json
from swarm_agent.model.errors import BadRequest, ClusterError

from .message import Request

Filters = Mapping[str, list[str]]


def parse_filters(request: Request, accepted: Collection[str] | None) -> Filters:
    """The request's filters. Raises BadRequest for malformed JSON, and for filters not in `accepted`, if given."""
    text = request.query.get("filters", "")
    if not text:
        return {}
    try:
        value = read_json(text.encode())
    except (BadRequest, UnicodeEncodeError):
        raise BadRequest("invalid filter") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("invalid filter")
    filters = {name: _values(item) for name, item in value.items()}
    for name in filters:
        if accepted is not None and name not in accepted:
            raise BadRequest(f"invalid filter '{name}'")
    return filters


def _values(item: Any) -> list[str]:
    if isinstance(item, dict) and all(isinstance(on, bool) for on in item.values()):
        return list(item)
    if isinstance(item, list) and all(isinstance(value, str) for value in item):
        return item
    raise BadRequest("invalid filter")


def is_in(value: str, wanted: list[str] | None) -> bool:
    """No filter, or exactly one of the values."""
    return not wanted or value in wanted


def has_prefix(value: str, wanted: list[str] | None) -> bool:
    """No filter, or it begins with one of the values."""
    return not wanted or value.startswith(tuple(wanted))


def has_labels(labels: Mapping[str, str], wanted: list[str] | None) -> bool:
    """All of KEY or KEY=VALUE hold. A key without value matches any value."""
    for item in wanted or ():
        key, equals, value = item.partition("=")
        if key not in labels or (equals and value and labels[key] != value):
            return False
    return True


def check_words(name: str, values: list[str] | None, words: Collection[str]) -> list[str]:
    """The values in lower case. Raises for a word that Swarm does not know; it answers 500 there."""
    given = [value for value in values or () if value]
    for value in given:
        if value.lower() not in words:
            raise ClusterError(f"Invalid {name} filter: '{value}'")
    return [value.lower() for value in given]
