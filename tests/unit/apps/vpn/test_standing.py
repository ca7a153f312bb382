"""What the client tells of itself."""

from apps.vpn.leasing import Held, Place
from apps.vpn.messages import Lease, Limits, Status
from apps.vpn.standing import Figures, Standing
from nodes.client import PeerStats, TunnelStats

LEASE = Lease("10.66.0.2/32", "fd66::2/128", ["10.66.0.1"], 1400, 60.0, Limits(up=7))


def stats(came: int, went: int, **dropped: int) -> TunnelStats:
    peer = PeerStats("k", 1.0, True, came, 3, went, 4, dropped, 0.02)
    return TunnelStats(1, [peer], ["tcp"], {"no_peer": 2})


def test_rates_are_of_the_time_between_two_looks() -> None:
    first = Figures.of(stats(1000, 500), 10.0, Figures())
    assert (first.rate_in, first.rate_out) == (0.0, 0.0)
    then = Figures.of(stats(3000, 600, late=5), 12.0, first)
    assert (then.rate_in, then.rate_out, then.round_trip) == (1000.0, 50.0, 0.02)
    assert then.dropped == {"no_peer": 2, "late": 5}


def test_a_tunnel_that_was_begun_anew_has_no_negative_rate() -> None:
    before = Figures.of(stats(1_000_000, 0), 10.0, Figures())
    assert Figures.of(stats(10, 0), 11.0, before).rate_in == 0.0


def test_without_peers_there_is_nothing_to_tell() -> None:
    assert Figures.of(TunnelStats(1, [], [], {}), 5.0, Figures()) == Figures(at=5.0)


def test_a_lease_and_what_the_exit_says_are_told() -> None:
    standing = Standing()
    assert standing.told().state == "connecting"
    standing.connected(Held(Place("beta"), LEASE, None, 0.1), 7.0)
    standing.status = Status(2, 0.5, volume=9, blocked={"port": 1})
    told = standing.told()
    assert (told.state, told.exit, told.since, told.mtu) == ("connected", "beta", 7.0, 1400)
    assert told.addresses == ["10.66.0.2", "fd66::2"]
    assert told.limits == {"up": 7, "down": 0, "connections": 0, "volume": 0}
    assert (told.load, told.clients, told.volume, told.blocked) == (0.5, 2, 9, {"port": 1})


def test_what_was_lost_is_told_no_longer_but_why() -> None:
    standing = Standing()
    standing.connected(Held(Place("beta"), LEASE, None, 0.1), 7.0)
    standing.status = Status(2, 0.5)
    standing.lost("it burned down")
    told = standing.told()
    assert (told.state, told.exit, told.addresses, told.load) == ("connecting", "", [], 0.0)
    assert told.trouble == "it burned down"
