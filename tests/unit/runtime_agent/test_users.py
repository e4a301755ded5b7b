"""Docker's `--user`, looked up in files that a hostile image wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_proto.errors import InvalidRequestError
from labfleet_runtime_agent.core.spec import Identity
from labfleet_runtime_agent.core.users import resolve

USERS = """\
root:x:0:0:root:/root:/bin/sh
# a comment, then a line that is too short
daemon:x:1
bob:x:1000:100:Bob:/home/bob:/bin/sh
1001:x:7:8:a number as name:/home/seven:/bin/sh
eve:x:1001:1001::/home/eve:/bin/sh
homeless:x:1002:1002:::/bin/sh
"""
GROUPS = """\
root:x:0:
users:x:100:
wheel:x:10:bob,eve
audio:x:63:bob
short:x
"""


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ("", Identity(0, 0, (), "/root")),
        ("root", Identity(0, 0, (), "/root")),
        ("0", Identity(0, 0, (), "/root")),
        ("bob", Identity(1000, 100, (10, 63), "/home/bob")),
        ("1000", Identity(1000, 100, (10, 63), "/home/bob")),
        ("bob:wheel", Identity(1000, 10, (), "/home/bob")),
        ("bob:20", Identity(1000, 20, (), "/home/bob")),
        ("1000:users", Identity(1000, 100, (), "/home/bob")),
        ("bob:", Identity(1000, 100, (10, 63), "/home/bob")),
        (":wheel", Identity(0, 10, (), "/root")),
        ("4242", Identity(4242, 0, (), "/")),
        ("4242:4243", Identity(4242, 4243, (), "/")),
        ("homeless", Identity(1002, 1002, (), "/")),
        ("1001", Identity(7, 8, (), "/home/seven")),
    ],
)
def test_a_user_is_looked_up(user: str, wanted: Identity) -> None:
    assert resolve(user, USERS, GROUPS) == wanted


def test_an_image_without_users_still_has_root() -> None:
    assert resolve("", "", "") == Identity(0, 0, (), "/root")


def test_further_groups_are_added_by_name_and_number() -> None:
    assert resolve("bob", USERS, GROUPS, ("users", "4000")).groups == (10, 63, 100, 4000)


def test_further_groups_are_added_to_a_group_that_was_given() -> None:
    assert resolve("bob:users", USERS, GROUPS, ("wheel",)) == Identity(
        1000, 100, (10,), "/home/bob"
    )


@pytest.mark.parametrize("user", ["nobody", "daemon", "-1", "1000x", "²"], ids=ascii)
def test_an_unknown_user_is_named(user: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"unable to find user {user}:"):
        resolve(user, USERS, GROUPS)


@pytest.mark.parametrize("group", ["nogroup", "short", "²"], ids=ascii)
def test_an_unknown_group_is_named(group: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"unable to find group {group}:"):
        resolve(f"bob:{group}", USERS, GROUPS)


@pytest.mark.parametrize("user", ["65536", "0:65536"])
def test_an_id_beyond_the_range_of_a_container_is_refused(user: str) -> None:
    with pytest.raises(InvalidRequestError, match="id 65536 is beyond the container's 65536 ids"):
        resolve(user, USERS, GROUPS)


def test_the_last_id_of_the_range_is_allowed() -> None:
    assert resolve("65535:65535", "", "").uid == 65_535


@pytest.mark.parametrize(
    "passwd",
    ["bob:x:65536:0::/:", "bob:x:0:65536::/:", "bob:x:" + "9" * 5000 + ":0::/:", "bob:x:²:0::/:"],
    ids=["uid too great", "gid too great", "uid of 5000 digits", "uid is a superscript"],
)
def test_a_hostile_passwd_file_is_refused(passwd: str) -> None:
    with pytest.raises(InvalidRequestError):
        resolve("bob", passwd, "")


fields = st.text(alphabet="ab0²\x00 ", max_size=4) | st.sampled_from(
    ["0", "1000", "9" * 5000, "-1"]
)
rows = st.lists(fields, max_size=8).map(":".join)
files = st.lists(rows, max_size=4).map("\n".join)


@given(fields, fields, files, files, fields)
def test_any_file_gives_an_identity_or_a_refusal(
    user: str, group: str, passwd: str, groups: str, extra: str
) -> None:
    try:
        who = resolve(f"{user}:{group}", passwd, groups, (extra,))
    except InvalidRequestError:
        return
    assert all(0 <= number <= 65_535 for number in (who.uid, who.gid, *who.groups))
