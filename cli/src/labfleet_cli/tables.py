"""Columns for people and for other programs."""

from collections.abc import Sequence


def show(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns, never cut: other programs read them."""
    table = [titles, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
