import pytest

from labfleet_image_store.core import references
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.images import (
    familiar_repository,
    may_read,
    own_repository,
    owner_of,
    readable_as,
)

ANN, BOB = TenantId("ann"), TenantId("bob")


@pytest.mark.parametrize("tenant", [ANN, OPERATORS])
@pytest.mark.parametrize("name", ["busybox", "lab/tool", "ghcr.io/a/b"])
def test_a_repository_knows_its_owner_and_familiar_name(tenant: TenantId, name: str) -> None:
    stored = own_repository(tenant, name)
    assert owner_of(stored) == tenant
    assert familiar_repository(stored) == name


def test_no_client_can_write_the_stores_own_name() -> None:
    assert not references.is_repository(own_repository(ANN, "busybox"))


def test_one_reads_ones_own_and_the_operators_short_names() -> None:
    assert may_read(ANN, own_repository(ANN, "lab/tool"))
    assert may_read(ANN, own_repository(OPERATORS, "busybox"))
    assert not may_read(ANN, own_repository(BOB, "busybox"))
    assert not may_read(ANN, own_repository(OPERATORS, "staff/secret"))
    assert not may_read(OPERATORS, own_repository(ANN, "busybox"))


def test_ones_own_comes_before_a_shared_one() -> None:
    assert readable_as(ANN, "busybox") == ("_ann/busybox", "busybox")
    assert readable_as(ANN, "lab/tool") == ("_ann/lab/tool",)
    assert readable_as(OPERATORS, "busybox") == ("busybox",)
