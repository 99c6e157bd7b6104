"""What becomes of a file that the runtime provides when it is renewed."""

from __future__ import annotations

import pytest

from runtime.container.provided_files import renewed

OLD = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n"
NEW = "127.0.0.1\tlocalhost\n10.0.0.3\tweb\n10.1.0.2\tweb\n"


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (OLD, NEW),
        (OLD + "1.2.3.4\tmine\n", "127.0.0.1\tlocalhost\n1.2.3.4\tmine\n" + NEW[20:]),
        ("", NEW),
        ("1.2.3.4\tmine", "1.2.3.4\tmine\n" + NEW),
    ],
)
def test_lines_of_others_stay(actual: str, expected: str) -> None:
    assert renewed(actual, OLD, NEW) == expected
