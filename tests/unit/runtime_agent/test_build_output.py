"""The builder's lines in the words of docker's classic builder."""

from labfleet_runtime_agent.core.build_output import BuildFailedError, Translator, error_document
from labfleet_runtime_agent.core.build_words import ignore_file
from labfleet_runtime_agent.core.dockerfile import read

STEPS = read("FROM busybox\nRUN exit 3\n", {}).steps


def texts(documents: list[dict]) -> str:
    return "".join(each["stream"] for each in documents)


def test_steps_are_numbered_over_all_stages_and_shown_as_they_were_written() -> None:
    said = Translator(STEPS)
    assert texts(said.said("[1/2] STEP 1/2: FROM 0123")) == "Step 1/2 : FROM busybox\n"
    assert texts(said.said("[2/2] STEP 1/9: RUN exit 3")) == "Step 2/2 : RUN exit 3\n"
    assert texts(said.said("--> Using cache " + "a" * 64)) == " ---> Using cache\n"
    assert texts(said.said("--> abcdef01234")) == " ---> abcdef01234\n"
    assert texts(said.said("hello")) == "hello\n"
    for line in ("[2/2] COMMIT foo", "Successfully tagged localhost/foo:1", "a" * 64):
        assert said.said(line) == []


def test_what_a_command_says_on_standard_error_is_red() -> None:
    assert texts(Translator(STEPS).complained("oh")) == "\x1b[91moh\n\x1b[0m"


def test_a_failed_command_tells_its_code() -> None:
    said = Translator(STEPS)
    said.said("STEP 1/2: FROM 0123")
    said.said("STEP 2/2: RUN exit 3")
    said.complained('Error: building at STEP "RUN exit 3": while running runtime: exit status 3')
    failure = said.failure(3)
    message = "The command '/bin/sh -c exit 3' returned a non-zero code: 3"
    assert error_document(failure) == {
        "errorDetail": {"message": message, "code": 3},
        "error": message,
    }


def test_a_missing_source_and_the_rest() -> None:
    said = Translator(STEPS)
    said.complained(
        'Error: building at STEP "COPY nosuch /x": checking on sources under "/c": copier: stat: "/nosuch": '
        "no such file or directory"
    )
    assert said.failure(125).message == (
        "COPY failed: file not found in build context or excluded by .dockerignore: "
        "stat nosuch: file does not exist"
    )
    other = Translator(STEPS)
    other.complained("Error: something else")
    failure = other.failure(125)
    assert isinstance(failure, BuildFailedError)
    assert (failure.message, failure.exit_code) == ("something else", None)


def test_spaces_and_comments_of_an_ignore_file_mean_nothing() -> None:
    assert ignore_file("a \n\n#x\n! b/c  \n b\n") == "a\n!b/c\nb\n"
