"""Lists of names in pages, as the distribution specification has them."""

import json
from typing import Any
from urllib.parse import quote

from labfleet_image_store.service.registry_request import RegistryError, Request

_MOST_TAGS = 1000


def page_of(request: Request, names: list[str], path: str) -> tuple[list[str], dict[str, str]]:
    """One page of names after `last`, and the Link header to the next one."""
    last = request.asked("last")
    after = [name for name in names if last is None or name > last]
    asked = request.asked("n")
    if asked is not None and not (asked.isascii() and asked.isdigit()):
        raise RegistryError(400, "PAGINATION_NUMBER_INVALID", f"n {asked!r} is not a number")
    limit = min(int(asked), _MOST_TAGS) if asked is not None else _MOST_TAGS
    page = after[:limit]
    if len(after) > limit and page:
        return page, {"Link": f'<{path}?n={limit}&last={quote(page[-1])}>; rel="next"'}
    return page, {}


async def reply_json(request: Request, value: Any, headers: dict[str, str]) -> None:
    """Answer with a document."""
    await request.reply(
        200, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()
    )
