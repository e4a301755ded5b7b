"""Which hosts have which layers."""

from labfleet_proto.ids import Digest, HostId
from labfleet_proto.images import LayerRef
from labfleet_proto.layers import BlobState, LayerCopy
from labfleet_scheduler.core.image_copies import ImageCopies, image_bytes

ONE, TWO = HostId("h1"), HostId("h2")


def layer(letter: str, size: int) -> LayerRef:
    digest = Digest(f"sha256:{letter * 64}")
    return LayerRef(digest=digest, diff_id=digest, media_type="tar", size_bytes=size)


def copy(of: LayerRef, host: HostId, *, is_unpacked: bool = True) -> LayerCopy:
    return LayerCopy(host=host, digest=of.digest, blob=BlobState.WHOLE, is_unpacked=is_unpacked)


BASE, TOP = layer("a", 100), layer("b", 7)


def test_each_host_is_credited_with_the_layers_it_has() -> None:
    copies = ImageCopies()
    for one in (copy(BASE, ONE), copy(TOP, ONE), copy(BASE, TWO)):
        copies.note(one)
        copies.note(one)
    assert copies.present([BASE, TOP]) == {ONE: 107, TWO: 100}
    assert copies.present([TOP]) == {ONE: 7}


def test_a_layer_that_comes_twice_counts_once() -> None:
    copies = ImageCopies()
    copies.note(copy(BASE, ONE))
    assert copies.present([BASE, BASE]) == {ONE: 100}
    assert image_bytes([BASE, TOP, BASE]) == 107


def test_a_layer_that_is_only_being_fetched_is_missing() -> None:
    copies = ImageCopies()
    copies.note(copy(BASE, ONE, is_unpacked=False))
    assert copies.present([BASE]) == {}


def test_an_evicted_layer_is_missing_again() -> None:
    copies = ImageCopies()
    copies.note(copy(BASE, ONE))
    copies.note(copy(TOP, ONE))
    copies.note(copy(BASE, ONE, is_unpacked=False))
    copies.forget(TOP.digest, ONE)
    copies.forget(TOP.digest, TWO)
    assert copies.present([BASE, TOP]) == {}
