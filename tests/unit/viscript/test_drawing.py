"""The picture of a mesh: well-formed whatever nodes are called, and the same for the same mesh."""

from itertools import combinations, pairwise
from math import dist
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from viscript.commands.node import drawing
from viscript.commands.node.drawing import Edge

NAMES = st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=20), max_size=8)


@given(NAMES, st.data())
def test_any_names_make_a_picture(names, data):
    ends = st.sampled_from(sorted(names)) if names else st.text(max_size=3)
    drawn = st.builds(Edge, ends, ends, st.text(max_size=20), st.booleans(), st.integers(0, 3))
    edges = data.draw(st.lists(drawn, max_size=8))
    picture = drawing.svg(names, frozenset(list(names)[:1]), edges, "a <mesh>")
    root = ElementTree.fromstring(picture)
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(names)
    assert picture == drawing.svg(names, frozenset(list(names)[:1]), edges, "a <mesh>")


def test_linked_nodes_stand_near_each_other_and_no_two_in_one_place():
    nodes = [f"n{i}" for i in range(12)]
    edges = [Edge(a, b, "") for a, b in pairwise(nodes)]
    at = drawing.places(nodes, edges)
    gaps = [dist(at[a], at[b]) for a, b in combinations(nodes, 2)]
    linked = [dist(at[edge.a], at[edge.b]) for edge in edges]
    assert min(gaps) > 4 * drawing.SIZE
    assert sum(linked) / len(linked) < sum(gaps) / len(gaps)


def test_a_thousand_nodes_stand_on_a_circle():
    nodes = [str(i) for i in range(1000)]
    assert len(set(drawing.places(nodes, []).values())) == 1000


def test_as_text_every_node_has_its_links_below_it():
    edges = [Edge("a", "b", "1 ms", used=1), Edge("b", "c", "claimed", dashed=True)]
    assert drawing.text({"a": "alpha", "b": "beta", "c": "gamma"}, edges) == [
        "alpha",
        "  └━━ beta                  1 ms",
        "beta",
        "  ├━━ alpha                 1 ms",
        "  └╌╌ gamma                 claimed",
        "gamma",
        "  └╌╌ beta                  claimed",
    ]
