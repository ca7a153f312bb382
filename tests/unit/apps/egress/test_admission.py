"""Whom an app serves: what its command line may say, and what the node is told."""

import argparse

import pytest

from apps.egress.admission import EVERYBODY, allowed, key_or_everybody

KEY = "yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"  # of libzmq's documentation (zmq_curve)


@pytest.mark.parametrize("text", [KEY, EVERYBODY])
def test_a_key_and_everybody_are_taken_as_they_are(text: str):
    assert key_or_everybody(text) == text


@pytest.mark.parametrize("text", ["", "alpha", KEY[:-1], "Everybody"])
def test_anything_else_is_refused_by_what_it_is(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="is not the key of a node, nor everybody"):
        key_or_everybody(text)


def test_only_the_keys_that_were_said_are_let_in():
    assert allowed((KEY,)) == [KEY]


def test_everybody_among_them_lets_all_in():
    assert allowed([KEY, EVERYBODY]) is None


def test_nobody_is_not_everybody():
    assert allowed(()) == []
