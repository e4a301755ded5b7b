"""Docker's rule for names, and names for those who give none."""

import re
from collections.abc import Callable, Sequence

from labfleet_proto.errors import InvalidRequestError

RULE = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(RULE + "+")
_NETWORK_NAME = re.compile(r"[^/\x00-\x1f\x7f]+")
"""Docker takes nearly any, also with spaces."""
_LONGEST = 253

_ADJECTIVES = (
    "able amber awake brave bright brisk calm candid careful cheerful clear clever curious daring "
    "deft eager early earnest fair fearless fresh gentle glad golden happy honest humble jolly keen "
    "kind lively lucid merry mild modest neat nimble noble patient placid polite proud quick quiet "
    "ready sharp silent steady sunny swift tidy vivid warm wise witty young zealous"
).split()
_SURNAMES = (
    "abel banach bardeen bell bohr boole borg cantor cauchy chandrasekhar church curie darwin "
    "dijkstra dirac euclid euler faraday fermat fermi fourier franklin galileo galois gauss germain "
    "goedel hamilton hamming hilbert hopper huffman hypatia jacobi johnson kepler khwarizmi knuth "
    "kovalevskaya lamarr laplace leibniz liskov lovelace maxwell meitner mendel minsky napier newton "
    "noether nobel pascal pasteur perlman planck ramanujan riemann ritchie shannon shen sutherland "
    "tesla thompson turing wiles wirth wu yalow zu"
).split()


def checked_container_name(text: str) -> str:
    """Return the name without its leading slash. Raises InvalidRequestError with docker's words."""
    name = text.removeprefix("/")
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST:
        raise InvalidRequestError(
            f"Invalid container name ({text}), only {RULE} are allowed, "
            f"from 2 to {_LONGEST} characters"
        )
    return name


def checked_volume_name(name: str) -> str:
    """Return the name. Raises InvalidRequestError with docker's words."""
    if len(name) == 1:
        raise InvalidRequestError(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST:
        raise InvalidRequestError(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            f'only "{RULE}" are allowed. If you intended to pass a host directory, use absolute path'
        )
    return name


def checked_network_name(name: str) -> str:
    """Return the name. Raises InvalidRequestError."""
    if not name.strip():
        raise InvalidRequestError("invalid network name: name is empty")
    if _NETWORK_NAME.fullmatch(name) is None or len(name) > _LONGEST:
        raise InvalidRequestError(
            f"invalid network name ({name}): no slash, no control character, "
            f"at most {_LONGEST} characters"
        )
    return name


def random_name(choose: Callable[[Sequence[str]], str]) -> str:
    """An adjective and a scientist's surname, as docker gives."""
    return f"{choose(_ADJECTIVES)}_{choose(_SURNAMES)}"
