"""docker-py, a client with other habits than the command line's."""

import io
import tarfile
from collections.abc import Iterator

import docker
import pytest
from tests.farm.fleet import Fleet


@pytest.fixture
def client(shared_fleet: Fleet) -> Iterator[docker.DockerClient]:
    found = docker.DockerClient(base_url=shared_fleet.url, timeout=60)
    yield found
    found.close()
    shared_fleet.clean()


def test_run_and_logs(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", "sh -c 'exit 4'", remove=True)
    assert caught.value.exit_status == 4


def test_exec_streams_and_codes(client: docker.DockerClient) -> None:
    box = client.containers.run("busybox", "sleep 600", detach=True, name="box")
    code, (out, err) = box.exec_run("sh -c 'echo o; echo e >&2; exit 2'", demux=True)
    assert (code, out, err) == (2, b"o\n", b"e\n")
    box.reload()
    assert box.status == "running"
    assert box.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert box.stats(stream=False)["pids_stats"]["current"] == 1
    box.stop(timeout=0)
    assert box.wait()["StatusCode"] == 137


def test_a_volume_is_seen_as_it_was_made(client: docker.DockerClient) -> None:
    made = client.api.create_volume("made")
    assert client.api.inspect_volume("made") == made
    assert made in client.api.volumes()["Volumes"]
    client.api.remove_volume("made")


def test_a_label_alone_makes_an_image_of_nothing(client: docker.DockerClient) -> None:
    recipe = io.BytesIO(b"FROM scratch")
    image, _ = client.images.build(fileobj=recipe, tag="labelled", labels={"test": "OK"})
    assert image.labels == {"test": "OK"}
    client.images.remove("labelled")


def test_archives(client: docker.DockerClient) -> None:
    box = client.containers.create("busybox", "true")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("note")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"text"))
    assert box.put_archive("/tmp", data.getvalue())
    chunks, stat = box.get_archive("/tmp/note")
    assert stat["size"] == 4
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        found = tar.extractfile("note")
        assert found is not None
        assert found.read() == b"text"


def test_lists_and_errors(client: docker.DockerClient) -> None:
    assert any("busybox:latest" in image.tags for image in client.images.list())
    network = client.networks.create("pynet")
    assert [each.name for each in client.networks.list(names=["pynet"])] == ["pynet"]
    network.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nosuch")
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("nosuch")
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.50"


def test_what_has_ended_is_read_whole(client: docker.DockerClient) -> None:
    """docker-py reads a stream past the buffer of its head: nothing may come together with the head."""
    box = client.containers.create("busybox", "echo hello")
    box.start()
    box.wait()
    for _ in range(15):
        assert box.attach(stream=False, logs=True) == b"hello\n"


def test_the_log_right_after_the_start_has_what_a_short_command_says(
    client: docker.DockerClient,
) -> None:
    for _ in range(5):
        made = client.containers.create("busybox", ["echo", "said"])
        made.start()
        assert made.logs() == b"said\n"
    quiet = client.containers.create("busybox", ["sleep", "60"])
    quiet.start()
    assert quiet.logs() == b""
