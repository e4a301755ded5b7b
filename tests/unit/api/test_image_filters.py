"""Filters of the list of images."""

from labfleet_api.core.image_views import matching
from labfleet_proto.ids import Digest
from labfleet_proto.images import ImageSummary


def image(number: int, *tags: str, made_ns: int = 0) -> ImageSummary:
    return ImageSummary(
        image_id=Digest("sha256:" + f"{number:x}" * 64), tags=tags, digests=(), created_at_s=made_ns // 10**9,
        created_at_ns=made_ns, size_bytes=1, labels={},
    )  # fmt: skip


IMAGE = image(1, "utest:tag1", "utest/docker:tag2", "other:x")


def shown(*patterns: str) -> list[str]:
    return [tag for each in matching([IMAGE], {"reference": patterns}) for tag in each.tags]


def test_only_the_names_that_match_are_shown() -> None:
    assert shown("utest") == ["utest:tag1"]
    assert shown("utest:tag1", "other:x") == ["utest:tag1", "other:x"]
    assert matching([IMAGE], {"reference": ("none",)}) == []


def test_a_star_does_not_reach_over_a_slash() -> None:
    assert shown("utest*") == ["utest:tag1"]
    assert shown("utest*/*") == ["utest/docker:tag2"]


def test_images_of_one_second_are_before_and_after_each_other() -> None:
    images = [image(number, f"i:{number}", made_ns=5 * 10**9 + number) for number in range(1, 5)]
    found = matching(images, {"since": ("i:1",), "before": ("i:4",)})
    assert [each.tags[0] for each in found] == ["i:2", "i:3"]
    until = matching(images, {"until": ("1970-01-01T00:00:05.000000003Z",)})
    assert [each.tags[0] for each in until] == ["i:1", "i:2"]
