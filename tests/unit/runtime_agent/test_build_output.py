"""The builder's lines in the words of docker's classic builder."""

from labfleet_runtime_agent.core.build_failures import BuildFailedError
from labfleet_runtime_agent.core.build_output import Translator, error_document
from labfleet_runtime_agent.core.build_words import ignore_file
from labfleet_runtime_agent.core.dockerfile import read

BASE = "0" * 64
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def translator(text: str, **labels: str) -> Translator:
    return Translator(read(text, {}), {"busybox": BASE}, labels, key="build")


def texts(documents: list[dict]) -> str:
    return "".join(each["stream"] for each in documents)


def built(said: Translator, output: str, cut: int = 1 << 20) -> str:
    """All that is said of an output that comes in pieces."""
    data = output.encode()
    found = said.begun()
    for start in range(0, len(data), cut):
        found += said.said(data[start : start + cut])
    return texts(found + said.ended())


def test_steps_are_numbered_over_all_stages_and_shown_as_they_were_written() -> None:
    text = "ARG X\nfrom busybox as one\nRUN  printf a\nFROM one\nCOPY f /\n"
    output = (
        "[1/2] STEP 1/2: FROM 0\n[1/2] STEP 2/2: RUN printf a\na--> aaaaaaaaaaa\n[2/2] STEP 1/2: FROM a\n"
        f"[2/2] STEP 2/2: COPY f /\n[2/2] COMMIT\n--> bbbbbbbbbbb\n{B}\n"
    )
    for cut in (1, 7, 1000):
        said = translator(text)
        where = said.begun() and texts(said.begun())
        lines = built(said, output, cut).splitlines()
        assert where == "Step 1/5 : ARG X\n"
        assert lines[:3] == [
            "Step 1/5 : ARG X",
            "Step 2/5 : from busybox as one",
            " ---> 000000000000",
        ]
        assert lines[3] == "Step 3/5 : RUN  printf a"
        assert lines[4].startswith(" ---> Running in ")
        assert lines[5] == f"aRemoving intermediate container {lines[4][-12:]}"
        assert lines[6:] == [
            " ---> aaaaaaaaaaa",
            "Step 4/5 : FROM one",
            " ---> aaaaaaaaaaa",
            "Step 5/5 : COPY f /",
            " ---> bbbbbbbbbbbb",
        ]
        assert said.image == B


def test_newer_builders_say_twelve_digits_of_an_id() -> None:
    output = (
        "STEP 1/3: FROM 0\nSTEP 2/3: RUN printf a\na--> aaaaaaaaaaaa\n"
        f"STEP 3/3: COPY f /\nCOMMIT\n--> bbbbbbbbbbbb\n{B}\n"
    )
    said = translator("FROM busybox\nRUN printf a\nCOPY f /\n")
    lines = built(said, output, cut=7).splitlines()
    assert lines[-3:] == [" ---> aaaaaaaaaaaa", "Step 3/3 : COPY f /", " ---> bbbbbbbbbbbb"]
    assert said.image == B


def test_what_is_cached_and_what_a_base_wants_first() -> None:
    output = (
        f"STEP 1/2: FROM 0\nSTEP 2/4: RUN one\n--> Using cache {A}\n--> aaaaaaaaaaa\n"
        f"STEP 3/4: COPY two /\n--> bbbbbbbbbbb\nSTEP 4/4: ENV a=b\n--> ccccccccccc\n{C}\n"
    )
    said = translator("FROM busybox\nENV a=b\n")
    lines = built(said, output).splitlines()
    assert lines[:4] == [
        "Step 1/2 : FROM busybox",
        "# Executing 2 build triggers",
        " ---> Using cache",
        " ---> bbbbbbbbbbb",
    ]
    assert said.image == C


def test_what_only_looks_like_the_builders_words_is_passed_on() -> None:
    strange = f"STEP 1/2: x\nSTEP 3/2: x\n--> 01234567890\n{A}\nCOMMIT\n--> bbbbbbbbbbb\nend\n"
    output = f"STEP 1/2: FROM 0\nSTEP 2/2: RUN x\n{strange}COMMIT\n--> ccccccccccc\n{C}\n"
    said = translator("FROM busybox\nRUN x\n")
    assert strange in built(said, output)
    assert said.image == C


def test_a_line_that_has_not_ended_is_not_held_back() -> None:
    said = translator("FROM busybox\nRUN x\n")
    said.said(b"STEP 1/2: FROM 0\nSTEP 2/2: RUN x\n")
    assert said.said(b"\xe2\x82") == []
    assert texts(said.said(b"\xac 10%")).endswith("\n€ 10%")


def test_what_a_command_says_on_standard_error_is_red() -> None:
    said = translator("FROM busybox\nRUN x\n")
    assert texts(said.complained("oh")) == "\x1b[91moh\n\x1b[0m"
    assert said.complained("Error: none of the builder's") == []
    assert "none of" in texts(said.ended())


def test_a_failed_command_tells_its_code() -> None:
    said = translator('FROM busybox\nSHELL ["sh"]\nRUN exit 3\n')
    said.said(b"STEP 1/3: FROM 0\nSTEP 2/3: SHELL x\n--> aaaaaaaaaaa\nSTEP 3/3: RUN exit 3\n")
    before = said.complained(
        'def Error: building at STEP "RUN exit 3": while running runtime: exit status 3'
    )
    assert "def " in texts(before)
    _, failure = said.failed(3)
    message = "The command 'sh exit 3' returned a non-zero code: 3"
    assert error_document(failure) == {
        "errorDetail": {"message": message, "code": 3},
        "error": message,
    }


def test_a_missing_source_and_the_rest() -> None:
    missing = "checking on sources: copier: stat: {}: no such file or directory"
    for step, where, words in (
        ("COPY nosuch /x", '"/nosuch"', "excluded by .dockerignore: stat nosuch: file does not"),
        ("COPY nosuch* /x", '["/nosuch*"]', "COPY failed: no source files were specified"),
        ("COPY --from=a no /x", '"/no"', "COPY failed: stat no: file does not exist"),
    ):
        said = translator(f"FROM busybox\n{step}\n")
        said.said(f"STEP 1/2: FROM 0\nSTEP 2/2: {step}\n".encode())
        said.complained(f'Error: building at STEP "{step}": {missing.format(where)}')
        assert words in said.failed(125)[1].message
    other = translator("FROM busybox\nRUN x\n")
    other.complained("Error: something else")
    failure = other.failed(125)[1]
    assert isinstance(failure, BuildFailedError)
    assert (failure.message, failure.exit_code) == ("something else", None)


def test_spaces_and_comments_of_an_ignore_file_mean_nothing() -> None:
    assert ignore_file("a \n\n#x\n! b/c  \n b\n") == "a\n!b/c\nb\n"
