"""Little text that would make much: refused before it fills the memory."""

from __future__ import annotations

import pytest

from specs.errors import SpecError
from tests.unit.specs.conftest import Load

RANGE = '"1-65535:1-65535"'


def test_one_range_of_all_ports_is_taken_and_several_are_not(load: Load) -> None:
    web = f"{{image: a, ports: [{RANGE}]}}"
    ports = load(f"services: {{web: {web}}}").project.services["web"].ports
    assert len(ports) == 65535
    with pytest.raises(SpecError, match=r"services\.api\.ports\[0\]: .* more than 400,000 values"):
        load(f"services: {{web: {web}, api: {web}}}")


def test_services_that_extend_a_large_one_are_bounded_together(load: Load) -> None:
    base = f"{{image: a, environment: [{', '.join(f'K{n}=1' for n in range(5000))}]}}"
    text = f"services:\n  base: {base}\n"
    text += "".join(f"  s{n}: {{extends: base}}\n" for n in range(10))
    assert len(load(text).project.services) == 11
    text += "".join(f"  t{n}: {{extends: base}}\n" for n in range(200))
    with pytest.raises(SpecError, match=r"extends: .* more than 400,000 values"):
        load(text)


@pytest.mark.parametrize("value", ['"./a\\0b:/x"', '!!str "./a\\0b:/x"'])
def test_a_null_character_is_a_fault_of_the_spec(load: Load, value: str) -> None:
    with pytest.raises(SpecError, match=r"volumes\[0\]: a null character cannot stand in a spec"):
        load(f"services: {{web: {{image: a, volumes: [{value}]}}}}")
