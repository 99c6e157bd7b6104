"""Image references."""

from __future__ import annotations

import pytest

from runtime.errors import ImageError
from runtime.images.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
        ("me/app:1.0", "docker.io/me/app:1.0", "me/app:1.0"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("10.0.0.1:5000/a/b/c", "10.0.0.1:5000/a/b/c:latest", "10.0.0.1:5000/a/b/c:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("Reg/app", "Reg/app:latest", "Reg/app:latest"),
        ("reg.example/a_b__c.d--e", "reg.example/a_b__c.d--e:latest",
         "reg.example/a_b__c.d--e:latest"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
    ],
)  # fmt: skip
def test_a_reference_has_a_canonical_and_a_familiar_form(
    text: str, canonical: str, familiar: str
) -> None:
    reference = Reference.parse(text)
    assert reference.canonical == canonical
    assert reference.familiar() == familiar
    assert Reference.parse(canonical).canonical == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", ":tag", "Debian", "a b", "debian:", "debian:-x", "debian@sha256:abc", "a//b", "/a",
        "a/", "a" * 300, "debian:" + "x" * 129, "a" * 64, "../etc", "a/../b", "-a/b", "a.-b/c",
        "debian\n", "debian:x\n", "reg.example:port/app",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ImageError):
        Reference.parse(text)


def test_upper_case_gets_a_hint() -> None:
    with pytest.raises(ImageError) as caught:
        Reference.parse("me/App")
    assert caught.value.hint == "repository names are lower case"
