"""Chain ids of layers (OCI image-spec), by which docker tells which layers go with an image."""

import hashlib
from collections.abc import Iterable, Sequence


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Chain id of each layer with all below it, base first."""
    found: list[str] = []
    for diff_id in diff_ids:
        above = f"{found[-1]} {diff_id}" if found else ""
        found.append(
            f"sha256:{hashlib.sha256(above.encode()).hexdigest()}" if above else str(diff_id)
        )
    return found


def no_longer_used(diff_ids: Sequence[str], others: Iterable[Sequence[str]]) -> list[str]:
    """Chain ids of an image that no other image has, topmost first."""
    kept = {chain for other in others for chain in chain_ids(other)}
    return [chain for chain in reversed(chain_ids(diff_ids)) if chain not in kept]
