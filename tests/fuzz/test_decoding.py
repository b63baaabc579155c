"""The decoder of parameters; `make fuzz` tries it with inputs guided by what they reach."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.conftest import fuzz
from tests.fuzz.decoding import LABELS, check
from tests.fuzz.messages import damaged, damages, json_values

_json = json_values.map(lambda value: json.dumps(value).encode())


@fuzz
@given(
    label=st.sampled_from(LABELS),
    data=_json | st.builds(damaged, _json, damages) | st.binary(),
)
def test_whatever_is_decoded_can_be_encoded(label: str, data: bytes) -> None:
    check(label, data)
