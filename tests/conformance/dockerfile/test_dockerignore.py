"""`.dockerignore`: the same files reach the image as in `buildah bud`, context by context.

In three contexts they do not, and are meant not to: there an exception with a wildcard lies in
an ignored directory. `docker build` keeps what it names, and whoever has such a file has
written it for `docker build`; a build that silently lacks the file would be the worse surprise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.build.builder import BuildRequest, build
from runtime.build.steps import RunStep
from runtime.images.merged import MergedTree
from runtime.images.store import ImageStore
from tests.conformance.dockerfile.corpus import CORPUS, needs_corpus

CONTEXTS = CORPUS / "contexts/dockerignore"

pytestmark = [
    needs_corpus,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah as the oracle"),
]

# buildah looks into an ignored directory only for exceptions that begin with its name, as
# Docker's old builder did; BuildKit, whose rules are ours, for any with a wildcard (patternmatcher
# MatchesUsingParentResults, and fsutil's walk, which enters a directory as soon as there is one).
KEPT_BY_WILDCARD = {
    "exceptions-skip": {"volume", "volume/data", "volume/data/oneline.txt"},
    "exceptions-weirdness-1": {"subdir", "subdir/sub1.txt"},
    "integration1": {"subdir", "subdir/sub1.txt"},
}

DOCKERFILES = {
    "all": "FROM scratch\nCOPY . /\n",
    "below": "FROM scratch\nCOPY ./ /new/\n",
}


def contexts() -> list[str]:
    found = CONTEXTS.rglob(".dockerignore") if CONTEXTS.is_dir() else ()
    return sorted(str(path.parent.relative_to(CONTEXTS)) for path in found)


class NoSteps:
    def run(self, step: RunStep, output: Callable[[bytes], None]) -> int:
        raise AssertionError("these Dockerfiles run nothing")


def ours(place: Path, context: Path, dockerfile: str) -> set[str]:
    store = ImageStore(place / "store")
    image = build(
        BuildRequest(context=context, dockerfile_inline=dockerfile),
        store=store,
        steps=NoSteps(),
        progress=lambda _: None,
    )
    found: set[str] = set()
    with MergedTree(store.layer_paths(image)) as tree:
        pending: list[tuple[bytes, ...]] = [()]
        while pending:
            parts = pending.pop()
            for name in tree.names(parts):
                entry = tree.entry((*parts, name))
                assert entry is not None
                found.add(os.fsdecode(b"/".join((*parts, name))))
                if entry.is_directory:
                    pending.append((*parts, name))
    return found


def buildahs(place: Path, context: Path, dockerfile: str) -> set[str]:
    (place / "Dockerfile").write_text(dockerfile)
    argv = ["buildah", "--root", str(place / "root"), "--runroot", str(place / "run"),
            "--storage-driver", "vfs"]  # fmt: skip

    def call(*words: str) -> str:
        done = subprocess.run([*argv, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    call("bud", "--isolation", "chroot", "-q", "-t", "built", "-f", str(place / "Dockerfile"),
         str(context))  # fmt: skip
    root = Path(call("mount", call("from", "built")))
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    call("umount", "--all")
    call("rm", "--all")
    return found


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
@pytest.mark.parametrize("context", contexts())
def test_the_same_files_are_taken(tmp_path: Path, context: str, dockerfile: str) -> None:
    text = DOCKERFILES[dockerfile]
    theirs = buildahs(tmp_path, CONTEXTS / context, text)
    more = KEPT_BY_WILDCARD.get(context, set())
    theirs |= {f"new/{path}" for path in more} if dockerfile == "below" else more
    assert ours(tmp_path, CONTEXTS / context, text) == theirs
