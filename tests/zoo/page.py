"""`docs/archive-zoo.md`: a text of people, and below a mark the tables that the tests hold."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "archive-zoo.md"
_MARK = "<!-- tables: python -m tests.zoo -->\n"


def with_table(page: str, tables: str) -> str:
    """The page with other tables."""
    return f"{page.partition(_MARK)[0]}{_MARK}\n{tables}"


def rows() -> dict[tuple[str, str], str]:
    """What the page says of each layer."""
    found, cage = {}, ""
    for line in PAGE.read_text().partition(_MARK)[2].splitlines():
        if line.startswith("## "):
            cage = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| layer "):
            name, _, words = line.removeprefix("| ").removesuffix(" |").partition(" | ")
            found[cage, name] = words.replace("\\|", "|")
    return found
