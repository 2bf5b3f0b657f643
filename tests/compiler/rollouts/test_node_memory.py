"""Which prefixes are remembered, and how many bytes that takes."""

from budc.compiler.rollouts.node_memory import PrefixMemory, node_bytes


def path(name):
    """Prefixes of a candidate, shortest first."""
    return [name[: end + 1] for end in range(len(name))]


def test_the_longest_prefix_of_the_oldest_candidate_is_forgotten_first():
    memory = PrefixMemory(4)
    assert memory.use(path("abc"), [1, 1, 1]) == []
    assert memory.use(path("ad"), [1, 1]) == []
    assert memory.use(path("ae"), [1, 1]) == ["abc"]
    assert all(prefix in memory for prefix in ("a", "ab", "ad", "ae"))


def test_a_candidate_is_remembered_whole_even_where_it_is_too_large():
    memory = PrefixMemory(2)
    assert memory.use(path("abc"), [1, 1, 1]) == []
    assert memory.use(path("xyz"), [1, 1, 1]) == ["abc", "ab", "a"]
    assert all(prefix in memory for prefix in path("xyz"))


def test_a_prefix_takes_the_most_that_any_candidate_asks_of_it():
    memory = PrefixMemory(6)
    memory.use(["a"], [2])
    memory.use(["a", "ab"], [3, 1])
    memory.use(["a", "ac"], [1, 2])
    # a takes 3, ab 1 and ac 2: full, but no fuller.
    assert memory.use(["a"], [3]) == []
    assert memory.use(["x"], [1]) == ["ab"]


def test_a_node_holds_what_its_branches_cache():
    assert node_bytes("velocity", latents=8, residual=100, computing=2, steps=5) == 16


def test_a_node_that_caches_residuals_holds_the_velocities_of_its_steps_as_well():
    assert node_bytes("trunk-residual", latents=8, residual=100, computing=2, steps=5) == 240
