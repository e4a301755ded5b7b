"""`docker rmi`: what goes, what stays, and docker's words when it may not."""

import pytest

from labfleet_image_store.core.chains import chain_ids, no_longer_used
from labfleet_image_store.core.removal import Name, Users, by_id, by_reference
from labfleet_proto.errors import ConflictError

D = "sha256:" + "a" * 64
TAG, OTHER, DIGEST = Name("box", "v1", D), Name("box", "v2", D), Name("box", "", D)
ELSEWHERE, ELSEWHERE_DIGEST = Name("cup", "v1", D), Name("cup", "", D)
NOBODY = Users()


def test_the_last_tag_takes_its_digest_and_the_image_along() -> None:
    plan = by_reference(TAG, [TAG, DIGEST], NOBODY, force=False, short="abc")
    assert plan.untagged == (TAG, DIGEST)
    assert not plan.is_kept


def test_with_another_tag_only_the_name_goes() -> None:
    plan = by_reference(TAG, [TAG, OTHER, DIGEST], NOBODY, force=False, short="abc")
    assert (plan.untagged, plan.is_kept) == ((TAG,), True)


def test_with_another_repository_the_digest_goes_too_and_the_image_stays() -> None:
    names = [TAG, DIGEST, ELSEWHERE, ELSEWHERE_DIGEST]
    plan = by_reference(TAG, names, Users("run"), force=False, short="abc")
    assert (plan.untagged, plan.is_kept) == ((TAG, DIGEST), True)


def test_the_only_name_of_a_used_image_needs_force_and_leaves_it_dangling() -> None:
    users = Users(running="cafe")
    with pytest.raises(ConflictError, match=r'"box:v1" \(must force\) - container cafe is using'):
        by_reference(TAG, [TAG, DIGEST], users, force=False, short="abc")
    plan = by_reference(TAG, [TAG, DIGEST], users, force=True, short="abc")
    assert (plan.is_kept, plan.is_dangling) == (True, True)


def test_by_id_several_names_or_a_stopped_container_need_force_and_a_running_one_forbids() -> None:
    with pytest.raises(ConflictError, match=r"must be forced.*multiple repositories"):
        by_id([TAG, OTHER, DIGEST], NOBODY, force=False, short="abc")
    with pytest.raises(ConflictError, match=r"must be forced.*stopped container cafe"):
        by_id([TAG, DIGEST], Users(stopped="cafe"), force=False, short="abc")
    with pytest.raises(ConflictError, match=r"cannot be forced.*running container cafe"):
        by_id([TAG, DIGEST], Users(running="cafe"), force=True, short="abc")
    plan = by_id([TAG, OTHER, DIGEST], Users(stopped="cafe"), force=True, short="abc")
    assert (plan.untagged, plan.is_kept) == ((TAG, OTHER, DIGEST), False)


def test_layers_that_another_image_has_are_not_told_as_deleted() -> None:
    assert chain_ids(["a"]) == ["a"]
    base, above = chain_ids(["a", "b"])
    assert base == "a"
    assert no_longer_used(["a", "b"], [["a"], ["b"]]) == [above]
    assert no_longer_used(["a", "b"], []) == [above, base]
