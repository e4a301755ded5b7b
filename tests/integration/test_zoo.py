"""Every layer of the zoo becomes what `docs/archive-zoo.md` says, and touches nothing beside its directory."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.farm import one_host
from tests.zoo.animals import Animal, animals
from tests.zoo.outcome import outcome
from tests.zoo.page import rows

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners need root"),
]

ALL = list(animals())
PAGE = rows()


@pytest.fixture
def home() -> Iterator[Path]:
    with one_host.directory() as made:
        (made / "root").mkdir()
        (made / "outside").mkdir()
        (made / "outside" / "file").write_text("untouched")
        yield made


@pytest.mark.parametrize(("cage", "animal"), ALL, ids=[f"{c}: {a.name}" for c, a in ALL])
def test_a_layer_becomes_what_the_page_says(home: Path, cage: str, animal: Animal) -> None:
    assert outcome(animal, home / "root") == PAGE[cage, animal.name]
    there = (home / "outside" / "file").stat()
    assert (home / "outside" / "file").read_text() == "untouched"
    assert (there.st_nlink, there.st_uid, there.st_mode & 0o7777) == (1, 0, 0o644)
    assert {path.name for path in home.rglob("*") if home / "root" not in path.parents} == {
        "root", "outside", "file",
    }  # fmt: skip
    shutil.rmtree(home / "root")  # and what was made can be taken away again


def test_the_page_has_each_layer_once() -> None:
    assert set(PAGE) == {(cage, animal.name) for cage, animal in ALL}
    assert max(Counter((cage, animal.name) for cage, animal in ALL).values()) == 1
