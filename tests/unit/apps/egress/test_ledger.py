import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apps.egress.ledger import MAX_ACCOUNTS, Account, Ledger, LimitError, Limits, NotAdmitted
from bus.identity import from_bytes

KEY = from_bytes(bytes(range(32)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connections=64", Limits(connections=64)),
        ("rate=10M", Limits(rate=10_000_000)),
        ("rate=1.5k,associations=0", Limits(rate=1500, associations=0)),
        ("volume=50G/day", Limits(volume=50_000_000_000, period=86_400)),
        ("volume=1G/hour", Limits(volume=1_000_000_000, period=3600)),
        ("volume=1T", Limits(volume=10**12)),
    ],
)
def test_limits_are_read(text: str, expected: Limits):
    assert Limits.parse(text) == (None, expected)


def test_limits_of_one_key_change_what_they_name():
    base = Limits(connections=5, rate=7)
    assert Limits.parse(f"{KEY},rate=1M", base) == (KEY, Limits(connections=5, rate=1_000_000))


@pytest.mark.parametrize(
    "text",
    [
        "", "connections", "connections=", "connections=x", "speed=1", "volume=1G/fortnight",
        "rate=-1", "rate=1m", f"{KEY}", f"{KEY[1:]},rate=1", "connections=1,,rate=1", "connections=4/day",
    ],
)  # fmt: skip
def test_a_limit_that_cannot_be_read_is_named(text: str):
    with pytest.raises(LimitError, match="limit"):
        Limits.parse(text)


def refusal(ledger: Ledger, key: str, now: float = 0) -> str | None:
    try:
        ledger.disconnect(ledger.connect(key, now))
    except NotAdmitted as error:
        return error.reason
    return None


def test_a_key_has_so_many_connections_and_others_have_theirs():
    ledger = Ledger(Limits(connections=2))
    first = ledger.connect("a", 0)
    ledger.connect("a", 0)
    assert refusal(ledger, "a") == "connections"
    assert refusal(ledger, "b") is None
    ledger.disconnect(first)
    assert refusal(ledger, "a") is None


def test_all_keys_together_have_so_many_connections():
    ledger = Ledger(Limits(connections=0), connections=2)
    ledger.connect("a", 0)
    ledger.connect("b", 0)
    assert refusal(ledger, "c") == "busy"
    assert ledger.load == 1


def test_associations_are_counted_beside_connections():
    ledger = Ledger(Limits(connections=1, associations=1), associations=2)
    account = ledger.associate("a", 0)
    assert refusal(ledger, "a") is None
    with pytest.raises(NotAdmitted, match="1 associations"):
        ledger.associate("a", 0)
    ledger.associate("b", 0)
    with pytest.raises(NotAdmitted, match="busy"):
        ledger.associate("c", 0)
    ledger.dissociate(account)
    ledger.associate("c", 0)


def test_a_key_with_limits_of_its_own():
    ledger = Ledger(Limits(connections=1), {"a": Limits(connections=2)})
    ledger.connect("a", 0)
    assert refusal(ledger, "a") is None
    ledger.connect("b", 0)
    assert refusal(ledger, "b") == "connections"


def test_a_volume_is_used_up_and_comes_back_with_the_next_period():
    ledger = Ledger(Limits(volume=100, period=60))
    account = ledger.connect("a", 1000)
    account.spend(60, 39, 1000)
    assert account.exhausted(1001) is None
    account.spend(1, 0, 1010)
    assert "another 40 s" in (account.exhausted(1020) or "")
    assert refusal(ledger, "a", 1059) == "volume"
    assert refusal(ledger, "a", 1060) is None
    assert (account.bytes_in, account.bytes_out, account.used) == (61, 39, 0)


def test_who_was_refused_is_counted_by_reason():
    ledger = Ledger(Limits(connections=1))
    account = ledger.connect("a", 0)
    for _ in range(3):
        refusal(ledger, "a")
    assert account.refused == {"connections": 3}


def test_of_very_many_keys_those_that_hold_or_owe_something_are_kept():
    ledger = Ledger(Limits(volume=1000), connections=10)
    held = ledger.connect("holds", 0)
    ledger.account("owes", 0).spend(1, 1, 0)
    for number in range(MAX_ACCOUNTS * 2):
        ledger.account(f"key{number}", 1)
    assert len(ledger.accounts) <= MAX_ACCOUNTS
    assert ledger.accounts["holds"] is held
    assert "owes" in ledger.accounts


class Model(RuleBasedStateMachine):
    """Connections and associations that come and go: what is held is what was admitted."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(Limits(connections=2, associations=1), connections=4, associations=2)
        self.connections: list[Account] = []
        self.associations: list[Account] = []

    @rule(key=st.sampled_from("abcd"))
    def connect(self, key: str) -> None:
        mine = sum(account.key == key for account in self.connections)
        try:
            self.connections.append(self.ledger.connect(key, 0))
        except NotAdmitted:
            assert mine == 2 or len(self.connections) == 4
        else:
            assert mine < 2
            assert len(self.connections) <= 4

    @rule(key=st.sampled_from("abcd"))
    def associate(self, key: str) -> None:
        mine = sum(account.key == key for account in self.associations)
        try:
            self.associations.append(self.ledger.associate(key, 0))
        except NotAdmitted:
            assert mine == 1 or len(self.associations) == 2

    @precondition(lambda self: self.connections)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.connections) - 1))
        self.ledger.disconnect(self.connections.pop(at))

    @precondition(lambda self: self.associations)
    @rule()
    def dissociate(self) -> None:
        self.ledger.dissociate(self.associations.pop())

    @invariant()
    def counted(self) -> None:
        assert self.ledger.connections == len(self.connections)
        assert self.ledger.associations == len(self.associations)
        for account in self.ledger.accounts.values():
            assert account.connections == sum(a is account for a in self.connections)


TestModel = Model.TestCase
