"""What is shipped, and how it behaves where it is installed."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from orchestrator.version import VERSION

REPOSITORY = Path(__file__).parents[2]
PACKAGES = {"orchestrator", "specs", "runtime", "bridge"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, REPOSITORY],
        check=True,
        capture_output=True,
        timeout=100,
    )
    (built,) = place.glob("*.whl")
    return built


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    top = {name.split("/")[0] for name in names}
    assert top == {*PACKAGES, f"bayplan-{VERSION}.dist-info"}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if "test" in Path(name).name]


def test_the_wheel_installs_the_command(wheel: Path, tmp_path: Path) -> None:
    # Without --ignore-installed pip would take the checkout's own installation away.
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    pip += ["--ignore-installed", "--prefix", str(tmp_path)]
    subprocess.run([*pip, wheel], check=True, timeout=60)
    (packages,) = tmp_path.glob("lib/python*/site-packages")

    shown = subprocess.run(
        [sys.executable, tmp_path / "bin" / "bay", "version", "--short"],
        env={"PYTHONPATH": str(packages)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert shown.stdout == f"{VERSION}\n"


def test_modules_of_the_same_names_in_the_current_directory_change_nothing(
    tmp_path: Path,
) -> None:
    for package in PACKAGES:
        (tmp_path / f"{package}.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: debian}}\n")

    shown = subprocess.run(
        [Path(sys.executable).with_name("bay"), "config", "--services"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert shown.stdout == "web\n"


@pytest.mark.parametrize("lock", ["run", "dev"])
def test_every_dependency_is_locked_with_a_digest(lock: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    if lock == "dev":
        wanted += project["optional-dependencies"]["dev"]
    text = (REPOSITORY / "requirements" / f"{lock}.lock").read_text()

    locked = set(re.findall(r"^([a-z0-9._-]+)==\S+ \\\n    --hash=sha256:", text, re.MULTILINE))

    assert {re.split(r"[<>=~]", name)[0] for name in wanted} <= locked
    assert "://" not in text
