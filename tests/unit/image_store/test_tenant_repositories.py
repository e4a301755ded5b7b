import pytest

from labfleet_image_store.core import references
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.images import (
    familiar_repository,
    own_repository,
    owner_of,
    readable_as,
)
from labfleet_proto.registry_access import SharedRecord, is_shared_by, shared_patterns

ANN = TenantId("ann")


def shared(**entries: bool) -> list[SharedRecord]:
    return [
        SharedRecord(pattern=pattern, is_shared=is_shared, changed_at_ns=1)
        for pattern, is_shared in entries.items()
    ]


@pytest.mark.parametrize("tenant", [ANN, OPERATORS])
@pytest.mark.parametrize("name", ["busybox", "lab/tool", "ghcr.io/a/b"])
def test_a_repository_knows_its_owner_and_familiar_name(tenant: TenantId, name: str) -> None:
    stored = own_repository(tenant, name)
    assert owner_of(stored) == tenant
    assert familiar_repository(stored) == name


def test_no_client_can_write_the_stores_own_name() -> None:
    assert not references.is_repository(own_repository(ANN, "busybox"))


def test_names_without_a_slash_are_shared_unless_somebody_says_otherwise() -> None:
    assert is_shared_by([], "busybox")
    assert not is_shared_by([], "staff/secret")
    assert not is_shared_by(shared(**{"*": False}), "busybox")
    assert shared_patterns([]) == [("*", True)]


def test_one_repository_is_kept_out_of_what_a_pattern_shares() -> None:
    records = shared(**{"course/**": True, "course/exam": False, "answers": False})
    assert is_shared_by(records, "course/spark")
    assert is_shared_by(records, "course/2026/spark")
    assert not is_shared_by(records, "course/exam")
    assert is_shared_by(records, "busybox")
    assert not is_shared_by(records, "answers")


def test_one_repository_is_shared_alone() -> None:
    records = shared(**{"*": False, "busybox": True, "lab/box": True})
    assert [is_shared_by(records, name) for name in ("busybox", "debian", "lab/box", "lab/b")] == [
        True,
        False,
        True,
        False,
    ]


def test_ones_own_comes_before_a_shared_one() -> None:
    def is_shared(name: str) -> bool:
        return is_shared_by(shared(**{"course/*": True}), name)

    assert readable_as(ANN, "busybox", is_shared) == ("_ann/busybox", "busybox")
    assert readable_as(ANN, "course/box", is_shared) == ("_ann/course/box", "course/box")
    assert readable_as(ANN, "lab/tool", is_shared) == ("_ann/lab/tool",)
    assert readable_as(OPERATORS, "busybox", is_shared) == ("busybox",)
