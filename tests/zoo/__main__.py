"""`python -m tests.zoo`: writes the tables of `docs/archive-zoo.md` anew; the diff is to be read."""

from tests.farm import one_host
from tests.zoo.animals import animals
from tests.zoo.outcome import outcome, table
from tests.zoo.page import PAGE, with_table


def main() -> None:
    """Unpack every layer of the zoo."""
    found = {}
    with one_host.directory() as home:
        for number, (cage, animal) in enumerate(animals()):
            root = home / f"{number}" / "root"
            root.mkdir(parents=True)
            found[cage, animal.name] = outcome(animal, root)
    PAGE.write_text(with_table(PAGE.read_text(), table(found)))


if __name__ == "__main__":
    main()
