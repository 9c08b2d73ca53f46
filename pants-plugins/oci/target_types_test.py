import pytest
from pants.engine.addresses import Address
from pants.engine.target import InvalidFieldChoiceException, InvalidFieldTypeException

from oci.target_types import InterpreterField, PlatformsField

ADDRESS = Address("images", target_name="here")


def test_one_address_is_a_string() -> None:
    field = InterpreterField(":cpython311", ADDRESS)
    assert field.to_unparsed_address_inputs().values == (":cpython311",)


@pytest.mark.parametrize("value", [[":cpython311"], (":cpython311",), 311])
def test_one_address_is_not_a_list(value) -> None:
    with pytest.raises(
        InvalidFieldTypeException, match="'interpreter' field .* must be an address"
    ):
        InterpreterField(value, ADDRESS)


def test_platforms_must_be_known() -> None:
    assert PlatformsField(["linux/arm64"], ADDRESS).value == ("linux/arm64",)
    with pytest.raises(InvalidFieldChoiceException, match="linux/amd64.*linux/arm64"):
        PlatformsField(["linux/riscv64"], ADDRESS)
