"""Pages of lists, as `n` and `last` of the distribution-spec ask for them."""

from collections.abc import Iterable
from dataclasses import dataclass

from labfleet_image_store.core.registry_errors import RegistryError

MOST_ITEMS = 10_000


@dataclass(frozen=True)
class Page:
    """Items of one answer; `has_more` asks for a Link header."""

    items: tuple[str, ...]
    has_more: bool


def _order(text: str) -> tuple[str, str]:
    """Lexical order is case-insensitive in the specification."""
    return (text.lower(), text)


def parse_count(text: str | None) -> int | None:
    """Parse `n`. Raises RegistryError PAGINATION_NUMBER_INVALID."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise RegistryError(
            400, "PAGINATION_NUMBER_INVALID", f"invalid number of results requested: {text}"
        )
    return int(text)


def page(items: Iterable[str], count: int | None, last: str | None) -> Page:
    """Return the items after `last` in lexical order, at most `count` of them."""
    ordered = sorted(items, key=_order)
    if last:
        ordered = [item for item in ordered if _order(item) > _order(last)]
    limit = MOST_ITEMS if count is None else min(count, MOST_ITEMS)
    return Page(tuple(ordered[:limit]), 0 < limit < len(ordered))
