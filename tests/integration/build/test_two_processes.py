"""Two processes build the same, or load the same, at once: the work is done once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from runtime.images.save import save
from runtime.images.store import ImageStore
from tests.unit.runtime.images.test_store import make

ROOT = Path(__file__).parents[3]
DOCKERFILE = "FROM scratch AS one\nCOPY f /f\nRUN a\nFROM one AS two\nRUN b\nFROM two\nRUN c\n"
BUILD = """
import os, sys
from pathlib import Path
from runtime.build.builder import BuildRequest, build
from runtime.images.store import ImageStore

place = Path(sys.argv[1])

class Writer:
    def run(self, step, output):
        log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, step.argv[-1].encode() + b"\\n")
        os.close(log)
        (step.upper / step.argv[-1]).write_bytes(os.urandom(300_000))
        return 0

store = ImageStore(place / "store")
request = BuildRequest(
    context=place / "context", dockerfile_inline=sys.argv[2], tags=(f"made:{sys.argv[3]}",)
)
print("ready", flush=True)
sys.stdin.readline()
print(build(request, store=store, steps=Writer(), progress=lambda event: None).digest)
"""
LOAD = """
import os, sys
from pathlib import Path
from runtime.images import layers
from runtime.images.load import load
from runtime.images.store import ImageStore

place = Path(sys.argv[1])
unpack = layers.unpack

def counted(*args, **named):
    log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b"unpacked\\n")
    os.close(log)
    return unpack(*args, **named)

layers.unpack = counted
store = ImageStore(place / "store")
print("ready", flush=True)
sys.stdin.readline()
with open(place / "archive", "rb") as file:
    print(load(store, file)[0].digest)
"""
PROCESSES = 3


def at_once(program: str, place: Path, *arguments: str) -> list[str]:
    """Run a program several times, and let all begin together; what each says at last."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(place), *arguments, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    try:
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=100)[0].strip() for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert all(process.returncode == 0 for process in started)
    return said


def test_a_step_is_run_once_however_many_processes_build(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "f").write_text("1")
    digests = at_once(BUILD, tmp_path, DOCKERFILE)
    assert len(set(digests)) == 1
    assert Counter((tmp_path / "log").read_text().split()) == {"a": 1, "b": 1, "c": 1}
    store = ImageStore(tmp_path / "store")
    assert store.check() == ()
    assert {store.resolve(f"made:{number}").digest for number in range(PROCESSES)} == set(digests)


def test_an_archive_is_unpacked_once_however_many_processes_load_it(tmp_path: Path) -> None:
    source = ImageStore(tmp_path / "source")
    make(source, "app:1", layers=3)
    with open(tmp_path / "archive", "wb") as file:
        save(source, ["app:1"], file.write)
    digests = at_once(LOAD, tmp_path)
    assert set(digests) == {source.resolve("app:1").digest}
    assert (tmp_path / "log").read_text().split() == ["unpacked"] * 3
    assert ImageStore(tmp_path / "store").check() == ()
