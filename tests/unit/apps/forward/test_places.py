"""Places on the command line of the forwarding pair."""

import argparse

import pytest

from apps.forward.places import Place, address, node_port


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:22", Place("127.0.0.1", 22)),
        ("[::1]:22", Place("::1", 22)),
        ("localhost:65535", Place("localhost", 65535)),
    ],
)
def test_addresses(text: str, place: Place) -> None:
    assert address(text) == place
    assert str(place) == text


def test_keys_may_have_colons_in_them() -> None:
    key = "84:&:>ezTM)48fjMm+mJ:kN$7OEniEJxDl/I4<:/"
    assert node_port(f"{key}:22") == Place(key, 22)
    assert node_port("beta:22") == Place("beta", 22)


@pytest.mark.parametrize(
    "text", ["", "22", ":22", "beta", "beta:", "beta:0", "beta:65536", "beta:²"]
)
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        node_port(text)
