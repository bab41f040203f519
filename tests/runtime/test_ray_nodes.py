"""Which of a cluster's nodes has a place."""

from __future__ import annotations

import pytest

from engine.errors import NoHost, RuntimeFailure
from engine.runtime.ray_nodes import Node, choose


def node(number: int, host: str, *names: str) -> Node:
    return Node(f"id-{number}", host, f"10.0.0.{ord(host[0])}", frozenset({host, *names}))


HOME = node(0, "home-host")


def test_without_a_place_the_engines_own_node_is_chosen() -> None:
    assert choose([HOME, node(1, "alpha")], (), HOME.id) is HOME
    with pytest.raises(NoHost):
        choose([node(1, "alpha")], (), HOME.id)


def test_the_first_place_that_a_living_node_has_is_chosen() -> None:
    alpha, beta = node(1, "alpha", "tokyo"), node(2, "beta", "osaka")
    assert choose([HOME, alpha, beta], ("tokyo", "osaka"), HOME.id) is alpha
    assert choose([HOME, beta], ("tokyo", "osaka"), HOME.id) is beta
    assert choose([HOME, beta], ("beta",), HOME.id) is beta
    with pytest.raises(NoHost, match="tokyo; there are beta, home-host, osaka"):
        choose([HOME, beta], ("tokyo",), HOME.id)


def test_two_hosts_of_one_place_are_refused() -> None:
    with pytest.raises(RuntimeFailure, match="name one of the hosts alpha, beta"):
        choose([node(1, "alpha", "tokyo"), node(2, "beta", "tokyo")], ("tokyo",), HOME.id)


def test_a_node_that_was_begun_anew_beside_the_one_that_it_replaces_is_waited_for() -> None:
    """Ray takes up to 30 s to know that the old one is dead; as a refusal it would spend every restart of the place."""
    with pytest.raises(NoHost, match="alpha has a node from before"):
        choose([node(1, "alpha", "tokyo"), node(2, "alpha", "tokyo")], ("tokyo",), HOME.id)
