"""What is wrong with a JSON body, in the words of Go's decoder: clients' tests look for them."""

import json
from email.message import Message

from labfleet_proto.errors import InvalidRequestError

_JSON = "application/json"
_PLACES = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name": "looking for beginning of object key string",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Illegal trailing comma before end of array": "looking for beginning of value",
    "Expecting ':' delimiter": "after object key",
    "Invalid control character": "in string literal",
    "Invalid \\escape": "in string escape code",
}


def check_content_type(given: str | None, *, has_body: bool) -> None:
    """Raise InvalidRequestError unless a body says that it is JSON; without a body nothing need be said."""
    if given is None and not has_body:
        return
    if not given:
        raise InvalidRequestError("malformed Content-Type header (): mime: no media type")
    header = Message()
    header["content-type"] = given
    if header.get_content_type() != _JSON:
        raise InvalidRequestError(f"unsupported Content-Type header ({given}): must be '{_JSON}'")


def json_problem(data: bytes) -> InvalidRequestError:
    """Say why a body is not one JSON document."""
    text = data.decode(errors="replace")
    if not text.strip():
        return InvalidRequestError("invalid JSON: got EOF while reading request body")
    try:
        json.loads(text)
    except RecursionError:
        return InvalidRequestError("invalid JSON: exceeded max depth")
    except json.JSONDecodeError as exc:
        if exc.msg == "Extra data":
            return InvalidRequestError("unexpected content after JSON")
        return InvalidRequestError(f"invalid JSON: {_words(text, exc)}")
    return InvalidRequestError("invalid JSON: the body is no JSON document")


def _words(text: str, exc: json.JSONDecodeError) -> str:
    at = exc.pos
    while at < len(text) and text[at] in " \t\r\n" and "control" not in exc.msg:
        at += 1
    if at >= len(text) or exc.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    place = next((words for start, words in _PLACES.items() if exc.msg.startswith(start)), "")
    if exc.msg.startswith("Expecting ',' delimiter"):
        place = "after object key:value pair" if _is_in_object(text[:at]) else "after array element"
    return f"invalid character {_quoted(text[at])} {place}".rstrip()


def _is_in_object(text: str) -> bool:
    """Whether the innermost bracket that is open at the end is an object's."""
    opened, is_string, is_escaped = [], False, False
    for char in text:
        if is_string:
            is_string = is_escaped or char != '"'
            is_escaped = char == "\\" and not is_escaped
        elif char == '"':
            is_string = True
        elif char in "{[":
            opened.append(char)
        elif char in "}]" and opened:
            opened.pop()
    return opened[-1:] == ["{"]


def _quoted(char: str) -> str:
    special = {"'": r"'\''", '"': "'\"'", "\n": r"'\n'", "\t": r"'\t'", "\r": r"'\r'"}
    return special.get(char) or (f"'{char}'" if char.isprintable() else f"'\\x{ord(char):02x}'")
