"""JSON Schemas of all messages: `python -m labfleet_proto.schema <directory>` writes one file each.

They are checked in; a difference is a reviewed decision, since old and new services talk for a while.
"""

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import labfleet_proto
from labfleet_proto.message import Message


def messages() -> dict[str, type[Message]]:
    """Every message class by `<module>.<Class>`."""
    found: dict[str, type[Message]] = {}
    for module in pkgutil.iter_modules(labfleet_proto.__path__):
        if module.name != "schema":
            for name, thing in vars(
                importlib.import_module(f"labfleet_proto.{module.name}")
            ).items():
                is_own = getattr(thing, "__module__", "") == f"labfleet_proto.{module.name}"
                if is_own and isinstance(thing, type) and issubclass(thing, Message):
                    is_generic = thing.__pydantic_generic_metadata__["parameters"]
                    found[f"{module.name}.{name}"] = thing[Any] if is_generic else thing  # type: ignore[index]
    found.pop("message.Message", None)
    return found


def documents() -> dict[str, str]:
    """File name to content."""
    return {
        f"{name}.json": json.dumps(model.model_json_schema(), indent=1, sort_keys=True) + "\n"
        for name, model in messages().items()
    }


def write(directory: Path) -> None:
    """Make the directory hold exactly the schemas of today."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = documents()
    for path in directory.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
