"""Corners of the API that moby's own integration tests and other projects' suites look at."""

import io
import json
import tarfile

from tests.farm.fleet import Fleet, until
from tests.farm.raw_http import asked


def test_a_last_line_without_line_feed_stays_so(fleet: Fleet) -> None:
    for name, driver in (("json", "json-file"), ("local", "local")):
        command = "printf first; printf second >&2"
        fleet.docker("run", "--name", name, "--log-driver", driver, "busybox", "sh", "-c", command)
        found = fleet.docker("logs", name)
        assert (found.raw, found.err) == (b"first", "second")


def test_a_body_that_is_no_json_is_told_before_anything_else(fleet: Fleet) -> None:
    for path in ("/containers/none/exec", "/containers/none/update", "/exec/none/start", "/commit",
                 "/volumes/create", "/containers/create"):  # fmt: skip
        for body, kind, words in (
            (b"{broken", "application/json", "invalid JSON: invalid character 'b'"),
            (b"{} more", "application/json", "unexpected content after JSON"),
            (b"{}", "text/plain", "unsupported Content-Type header (text/plain)"),
        ):
            with asked(fleet.plan.socket, "POST", path, body, {"Content-Type": kind}) as answer:
                assert answer.status == 400, (path, body)
                assert words in answer.body()["message"], path


def test_older_clients_prune_named_volumes_too(fleet: Fleet) -> None:
    fleet.docker("volume", "create", "kept")
    with asked(fleet.plan.socket, "POST", "/v1.42/volumes/prune") as answer:
        assert "kept" not in answer.body()["VolumesDeleted"]
    with asked(fleet.plan.socket, "POST", "/v1.41/volumes/prune") as answer:
        assert "kept" in answer.body()["VolumesDeleted"]


def test_a_subpath_may_be_a_file_and_leads_nowhere_else(fleet: Fleet) -> None:
    fill = "echo foo > /v/bar; mkdir /v/bin; ln -s / /v/root; ln -s bin /v/good"
    fleet.docker("run", "--rm", "-v", "sub:/v", "busybox", "sh", "-c", fill)

    def run(path: str, target: str, *command: str, code: int = 0) -> str:
        mount = f"type=volume,source=sub,target={target},volume-subpath={path}"
        done = fleet.docker("run", "--rm", "--mount", mount, "busybox", *command, code=code)
        return done.out + done.err

    assert run("bar", "/x", "cat", "/x") == "foo"
    assert run("bin", "/bin", "ls", "/bin/busybox") == "/bin/busybox"  # filled from the image
    assert "busybox" in run("good", "/x", "ls", "/x")
    assert "escapes the base directory" in run("root", "/x", "ls", "/x", code=125)


def test_a_container_is_listed_with_the_names_of_links_to_it(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "first", "busybox", "sleep", "60")
    fleet.docker("run", "-d", "--name", "second", "--link", "first:db", "busybox", "sleep", "60")
    with asked(fleet.plan.socket, "GET", '/containers/json?filters={"name":["first"]}') as answer:
        assert answer.body()[0]["Names"] == ["/first", "/second/db"]
    assert fleet.docker("ps", "-f", "name=first", "--format", "{{.Names}}").out == "first"


def test_an_empty_archive_is_one_without_members(fleet: Fleet) -> None:
    fleet.docker("create", "--name", "box", "busybox")
    with asked(fleet.plan.socket, "PUT", "/containers/box/archive?path=/tmp", b"") as answer:
        assert answer.status == 200
    fleet.docker("import", "-", "empty:latest")
    fleet.docker("rmi", "empty:latest")


def test_what_clients_read_of_the_engine(fleet: Fleet) -> None:
    info = json.loads(fleet.docker("info", "--format", "json").out)
    assert info["ServerVersion"].startswith("28.")
    assert "." in info["SystemTime"], "events are asked for by it"
    assert info["RuncCommit"]["ID"] == info["RuncCommit"]["Expected"]
    volume = json.loads(fleet.docker("volume", "inspect", fleet.docker("volume", "create").out).out)
    assert volume[0]["Mountpoint"].startswith(f"{info['DockerRootDir']}/volumes/")
    said = fleet.docker("tag", "busybox", "sha256:x", code=1).err
    assert "refusing to create an ambiguous tag" in said
    with asked(fleet.plan.socket, "GET", "/networks/") as answer:
        assert "bridge" in [each["Name"] for each in answer.body()]


def test_a_saved_config_has_the_time_of_its_image(fleet: Fleet) -> None:
    fleet.docker("create", "--name", "source", "busybox")
    fleet.docker("commit", "--change", "ENV PATH=/new:$PATH", "source", "timed:latest")
    about = json.loads(fleet.docker("image", "inspect", "timed").out)[0]
    assert next(each for each in about["Config"]["Env"] if "PATH" in each).startswith("PATH=/new:/")
    with tarfile.open(fileobj=io.BytesIO(fleet.docker("save", "timed").raw)) as tar:
        (entry,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert tar.getmember(entry["Config"]).mtime > 1_600_000_000
    fleet.docker("rmi", "timed")


def test_the_names_of_a_container_and_its_domain(fleet: Fleet) -> None:
    words = ("--rm", "--hostname", "one", "--domainname", "example.org", "-w", "/tmp/", "busybox")
    inside = "cat /proc/sys/kernel/domainname; pwd"
    said = fleet.docker("run", *words, "sh", "-c", inside).out.split()
    assert said == ["example.org", "/tmp"]
    fleet.docker("create", "--name", "dir", "-w", "/tmp/", "busybox")
    until(lambda: fleet.inspect("dir")["Config"]["WorkingDir"] == "/tmp")
