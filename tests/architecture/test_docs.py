"""Links lead somewhere, commands exist, and both languages show the same code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = (
    *READMES,
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Relative links, without those inside code."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def commands(page: Path) -> list[str]:
    """Lines of the shell blocks, without comments and alignment."""
    lines = [
        re.sub(r"\s+#\s.*", "", line).rstrip()
        for language, block in FENCE.findall(page.read_text())
        if language == "sh"
        for line in block.splitlines()
    ]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    broken = [
        link
        for link in links(page)
        if link.partition("#")[0] and not (page.parent / link.partition("#")[0]).exists()
    ]
    assert broken == []


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    prose = re.findall(r"`(make [^`\n]*)`", FENCE.sub("", READMES[0].read_text()))
    named = set(
        re.findall(r"^make ([a-z-]+)", "\n".join([*commands(READMES[0]), *prose]), re.MULTILINE)
    )
    assert named
    assert named <= targets


def test_both_languages_show_the_same_commands() -> None:
    english, chinese = (commands(page) for page in READMES)
    assert english
    assert english == chinese
