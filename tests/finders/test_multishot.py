"""Multishot: against a loop written by hand, level by level, in every scope and rewind."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import finders, masks, nets, tasks, training
from plantjax.finders import FINDERS, common
from plantjax.scores import SCORES
from plantjax.sweeps import worlds
from plantjax.types import Batch
from shared import flat, shares

CIRCLE, RELU = tasks.TASKS["circle"], tasks.TASKS["relu"]
DEPTH, WIDTH = 4, 20
COUNTS = [4, 40 + 18, 80 + 4]  # of the circle target at depth 4, weights and biases
KEY = jax.random.key(5)
DENSITY = 0.1


DEFAULTS = {
    "rounds": 3,
    "schedule": "exponential",
    "scope": "global",
    "level_epochs": 2,
    "batch_size": 32,
    "search_learning_rate": 1e-2,
    "optimizer": None,
    "rewind": "init",
    "rewind_step": 0,
}
MOMENTUM = optax.sgd(0.05, momentum=0.9)
CASES = {  # 180 samples: 5 steps an epoch, 3 for a batch size of 50
    "random": {"score": "random"},
    "magnitude": {
        **{"score": "magnitude", "scope": "layer", "schedule": "linear"},
        **{"rewind": "step", "rewind_step": 7},
    },
    "snip": {
        **{"score": "snip", "scope": "local", "rewind": "learning_rate"},
        **{"optimizer": MOMENTUM, "level_epochs": 1, "batch_size": 50},
    },
    "grasp": {"score": "grasp", "scope": "oracle", "rewind": "step", "rewind_step": 0},
}


QUICK = ["snip"]
RUN = [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES]


@functools.cache
def world():
    make = functools.partial(worlds.make_world, task=CIRCLE, depth=DEPTH, width=WIDTH, samples=200)
    return jax.jit(make)(worlds.cell_key(CIRCLE, 0))


@functools.cache
def program(case):
    """The compiled search, and the list in which its score records what it is asked about."""
    recorded = []

    def spied(apply, loss):
        score_fn = SCORES[CASES[case]["score"]](apply, loss)

        def score(key, params, mask, batch):
            jax.debug.callback(
                lambda *seen: recorded.append(seen), params, mask, batch, ordered=True
            )
            return score_fn(key, params, mask, batch)

        return score

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCORES, "spied", spied)
        finder = finders.multishot(CIRCLE, **DEFAULTS | CASES[case] | {"score": "spied"})
    return jax.jit(finder.search), recorded


@functools.cache
def ran(case, density=DENSITY):
    """What a search found, and per level the trained parameters, the mask before and the batch."""
    search, recorded = program(case)
    recorded.clear()
    found = jax.device_get(search(KEY, world().planted.params, world().train, density))
    jax.effects_barrier()
    return found, [jax.tree.map(np.asarray, seen) for seen in recorded]


@functools.cache
def trainer(optimizer, epochs, batch_size, steps):
    return jax.jit(
        functools.partial(
            training.fit,
            apply=nets.apply,
            loss=CIRCLE.loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            steps=steps,
        )
    )


@functools.cache
def adam(learning_rate):
    return optax.adam(learning_rate)


@functools.cache
def scorer(score):
    return jax.jit(SCORES[score](nets.apply, CIRCLE.loss))


@functools.cache
def selector(scope):
    return jax.jit(functools.partial(masks.select, scope=scope))


@functools.cache
def by_hand(case, density=DENSITY):
    """The levels of a search as a loop: trained parameters, losses, batches, masks; and rewound."""
    static = DEFAULTS | CASES[case]
    data, mother = world().train, world().planted.params
    train_key, prune_key = jax.random.split(KEY)
    fitting = (
        static["optimizer"] or adam(static["search_learning_rate"]),
        static["level_epochs"],
        static["batch_size"],
    )
    train = trainer(*fitting, None)
    mask = full = masks.full(mother)
    begin = rewound = mother
    if static["rewind"] == "step" and static["rewind_step"]:
        first = trainer(*fitting, static["rewind_step"])
        rewound, _ = first(jax.random.fold_in(train_key, 1), mother, full, data)
    levels = []
    for level in range(1, static["rounds"] + 1):
        trained, losses = train(jax.random.fold_in(train_key, level), begin, mask, data)
        keys = jax.random.split(jax.random.fold_in(prune_key, level), 3)
        batch = common.score_batch(keys[0], CIRCLE, data)
        scores = scorer(static["score"])(keys[1], trained, mask, batch)
        mask = selector(static["scope"])(
            keys[2],
            scores,
            wanted_density(static, level, density),
            within=mask,
            counts=jnp.asarray(COUNTS) if static["scope"] == "oracle" else None,
        )
        begin = trained if static["rewind"] == "learning_rate" else rewound
        levels.append(jax.device_get((trained, losses, batch, mask)))
    return levels, jax.device_get(begin)


def wanted_density(static, level, density=DENSITY):
    share = level / static["rounds"]
    return {
        "exponential": density**share,
        "linear": 1 - (1 - density) * share,
    }[static["schedule"]]


def trail(case, density=DENSITY):
    """The masks of a search [L + 1, P]: the full one, and those after each level."""
    found, levels = ran(case, density)
    return np.stack([flat(mask) for _, mask, _ in levels] + [flat(found.mask)])


@pytest.mark.slow
@pytest.mark.parametrize("case", RUN)
def test_levels_equal_a_loop_by_hand(case):
    found, levels = ran(case)
    wanted, rewound = by_hand(case)
    assert len(levels) == len(wanted)
    found_masks = [mask for _, mask, _ in levels[1:]] + [found.mask]
    for index, (trained, losses, batch, mask) in enumerate(wanted):
        chex.assert_trees_all_close(levels[index][0], trained, rtol=1e-3, atol=1e-4)
        chex.assert_trees_all_equal(levels[index][2], batch)
        np.testing.assert_allclose(found.info["loss"][index], losses[-1], rtol=1e-3)
        differing = (flat(found_masks[index]) != flat(mask)).sum()
        assert differing <= (0 if CASES[case]["score"] == "random" else 4)  # scores that close
    chex.assert_trees_all_close(found.params, rewound, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", RUN)
def test_levels_follow_the_schedule_with_exact_counts(case):
    static = DEFAULTS | CASES[case]
    found, levels = ran(case)
    trees = [mask for _, mask, _ in levels[1:]] + [found.mask]
    assert all(leaf.all() for leaf in jax.tree.leaves(levels[0][1]))
    for level, mask in enumerate(trees, 1):
        groups = {
            "global": [mask],
            "oracle": [mask],
            "layer": [mask[name] for name in sorted(mask)],
            "local": jax.tree.leaves(mask),
        }[static["scope"]]
        kept = [int(flat(group).sum()) for group in groups]
        sizes = [flat(group).size for group in groups]
        k = int(np.clip(np.floor(wanted_density(static, level) * sum(sizes) + 0.5), 1, sum(sizes)))
        assert kept == shares(k, sizes)
    if static["scope"] == "oracle":
        k = flat(found.mask).sum()
        layers = [flat(found.mask[name]).sum() for name in sorted(found.mask)]
        np.testing.assert_allclose(layers, k * np.array(COUNTS) / sum(COUNTS), atol=1)


@pytest.mark.parametrize("case", RUN)
def test_pruned_stays_pruned(case):
    rows = trail(case)
    assert not (rows[1:] & ~rows[:-1]).any()


@pytest.mark.parametrize("case", RUN)
def test_pruned_parameters_are_zero_when_scored_and_the_others_are_trained(case):
    _, levels = ran(case)
    for trained, mask, _ in levels:
        kept, values = flat(mask), flat(trained)
        np.testing.assert_array_equal(values[~kept], 0.0)
        assert (values[kept] != 0).mean() > 0.9
        moved = values[kept] != flat(world().planted.params)[kept]
        assert moved.mean() > 0.2  # a dead unit stands still


@pytest.mark.parametrize("case", RUN)
def test_info_tells_every_level(case):
    found, levels = ran(case)
    rows, rounds = trail(case)[1:], (DEFAULTS | CASES[case])["rounds"]
    assert set(found.info) == {*("kept_density", "live_density", "collapsed", "not_finite", "loss")}
    for values in found.info.values():
        assert values.shape == (rounds,)
        assert values.dtype == np.float32
    np.testing.assert_allclose(found.info["kept_density"], rows.mean(axis=1), rtol=1e-6)
    trees = [mask for _, mask, _ in levels[1:]] + [found.mask]
    for level, mask in enumerate(trees):
        live = masks.live(world().planted.params, mask)  # of the mother's biases
        np.testing.assert_allclose(found.info["live_density"][level], flat(live).mean(), rtol=1e-6)
    assert (found.info["loss"] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["random", "grasp"])
def test_rewinding_gives_the_bits_of_the_mother(case):
    chex.assert_trees_all_equal(ran(case)[0].params, jax.device_get(world().planted.params))


@pytest.mark.slow
def test_rewinding_to_a_step_gives_the_mother_after_so_many_steps():
    found, levels = ran("magnitude")
    first = jax.random.fold_in(jax.random.split(KEY)[0], 1)
    train = trainer(adam(1e-2), 2, 32, 7)
    mother, full = world().planted.params, masks.full(world().planted.params)
    wanted, _ = train(first, mother, full, world().train)
    chex.assert_trees_all_close(found.params, jax.device_get(wanted), rtol=1e-4, atol=1e-5)
    assert (flat(found.params) != 0).all()  # pruned entries too are where they were
    whole, _ = trainer(adam(1e-2), 2, 32, None)(first, mother, full, world().train)
    chex.assert_trees_all_close(levels[0][0], jax.device_get(whole), rtol=1e-4, atol=1e-5)
    assert np.abs(flat(found.params) - flat(levels[0][0])).max() > 1e-3
    assert np.abs(flat(found.params) - flat(mother)).max() > 1e-2


def test_rewinding_the_learning_rate_goes_on_with_the_trained_weights():
    found, levels = ran("snip")
    trained, mask, _ = levels[-1]
    chex.assert_trees_all_equal(found.params, trained)
    values, pruned = flat(found.params), ~flat(mask)
    assert pruned.sum() > 0.5 * pruned.size
    np.testing.assert_array_equal(values[pruned], 0.0)
    # the last level is selected from them, not yet applied
    assert (values[flat(mask) & ~flat(found.mask)] != 0).any()
    for (before, _, _), (after, kept, _) in itertools.pairwise(levels):
        steps = np.abs(flat(after) - flat(before))[flat(kept)]
        away = np.abs(flat(after) - flat(world().planted.params))[flat(kept)]
        assert steps.mean() < away.mean()


@functools.cache
def toy():
    """A search in a network of ten gains: the optimizer's counts, and the gains in every step."""
    counts, gains = [], []

    def update(updates, count, params=None):
        jax.debug.callback(lambda seen: counts.append(int(seen)), count, ordered=True)
        return jax.tree.map(lambda u: -0.1 * u, updates), count + 1

    def apply(params, x):
        jax.debug.callback(gains.append, params["gain"], ordered=True)
        return x * params["gain"]

    def halves(density, level, levels):
        return jnp.where(level < levels, jnp.float32(0.5), jnp.asarray(density, jnp.float32))

    finder = finders.multishot(
        RELU,
        score="random",
        apply=apply,
        rounds=4,
        schedule=halves,
        allow_revive=True,
        level_epochs=2,
        batch_size=5,
        optimizer=optax.GradientTransformation(lambda params: jnp.int32(0), update),
    )
    params = {"gain": jnp.linspace(0.5, 1.5, 10)[None, :]}
    data = Batch(jnp.linspace(-1.0, 1.0, 20)[:, None], jnp.ones((20, 10)))
    found = jax.device_get(jax.jit(finder.search)(KEY, params, data, 0.3))
    jax.effects_barrier()
    return found, counts, np.stack(gains).reshape(4, 8, 10), params


def test_every_level_has_a_fresh_optimizer():
    _, counts, _, _ = toy()
    assert counts == [*range(8)] * 4


def test_every_level_starts_from_the_masked_mother():
    _, _, gains, params = toy()
    for level in gains:
        begin = level[0]
        kept = begin != 0
        np.testing.assert_array_equal(begin[kept], np.asarray(params["gain"])[0, kept])
        np.testing.assert_array_equal(level != 0, np.broadcast_to(kept, level.shape))


def test_allow_revive_lets_pruned_parameters_come_back():
    found, _, gains, _ = toy()
    rows = np.concatenate([gains[:, 0] != 0, found.mask["gain"]])
    np.testing.assert_array_equal(rows.sum(axis=1), [10, 5, 5, 5, 3])  # a schedule of one's own
    np.testing.assert_allclose(found.info["kept_density"], [0.5, 0.5, 0.5, 0.3])
    assert (rows[1:] & ~rows[:-1]).any()


def test_networks_that_are_no_chain_have_no_live_density():
    assert set(toy()[0].info) == {"kept_density", "collapsed", "not_finite", "loss"}


@pytest.mark.slow
def test_collapse_is_told_where_it_happens():
    """A density of three parameters cannot keep a weight in all layers and a bias as well."""
    found, levels = ran("random", 2 / 564)
    trees = [mask for _, mask, _ in levels[1:]] + [found.mask]
    wanted = [sum(not layer["kernel"].any() for layer in mask.values()) for mask in trees]
    np.testing.assert_array_equal(found.info["collapsed"], wanted)
    assert wanted[0] == 0
    assert wanted[-1] >= 1
    assert np.isfinite(found.info["loss"]).all()
    rows = trail("random", 2 / 564)
    assert rows[-1].sum() == 2
    assert not (rows[1:] & ~rows[:-1]).any()


def test_the_key_decides():
    search, _ = program("snip")
    arguments = (world().planted.params, world().train, DENSITY)
    again, other = search(KEY, *arguments), search(jax.random.key(6), *arguments)
    chex.assert_trees_all_equal(jax.device_get(again.mask), ran("snip")[0].mask)
    assert (flat(other.mask) != flat(again.mask)).any()
    jax.effects_barrier()


def test_a_multishot_of_every_score_is_registered_with_ten_levels():
    for score in SCORES:
        finder = FINDERS[f"multishot_{score}"](CIRCLE)
        assert (finder.scope, finder.rounds, finder.exact_counts) == ("global", 10, True)
        assert finder.head is None
    local = FINDERS["multishot_snip"](CIRCLE, scope="local", rounds=2)
    assert (local.scope, local.rounds, local.exact_counts) == ("local", 2, False)
    assert finders.multishot(CIRCLE, score="snip", scope="oracle").exact_counts


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"score": "snap"}, r"score must be one of random, .*, got 'snap'"),
        ({"schedule": "root"}, r"schedule must be one of exponential, linear, .*, got .root."),
        ({"rewind": "back"}, r"rewind must be one of init, step, learning_rate, got 'back'"),
        ({"rounds": 0}, r"rounds must be an integer of at least 1, got 0"),
        ({"rewind_step": -1}, r"rewind_step must be an integer of at least 0, got -1"),
    ],
)
def test_bad_options_are_refused(static, message):
    with pytest.raises(ValueError, match=message):
        finders.multishot(CIRCLE, **{"score": "snip"} | static)


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"rounds": 565}, r"rounds must be an integer of at least 1 and at most 564, got 565"),
        ({"batch_size": 181}, r"batch_size must be .* at most 180, got 181"),
        (
            {"rewind": "step", "rewind_step": 11, "level_epochs": 2},
            r"steps must be an integer of at least 0 and at most 10, got 11",
        ),
    ],
)
def test_options_that_do_not_fit_network_or_data_are_refused(static, message):
    finder = finders.multishot(CIRCLE, score="snip", **static)
    with pytest.raises(ValueError, match=message):
        finder(KEY, world().planted.params, world().train, 0.5)


def test_as_many_levels_as_parameters_are_allowed():
    finder = finders.multishot(CIRCLE, score="random", rounds=564)
    jax.eval_shape(finder.search, KEY, world().planted.params, world().train, 0.5)


def up_again(density, step, steps):
    """A tenth after the first of two levels, then the density that is asked."""
    return jnp.where(jnp.asarray(step) < steps, 0.1, jnp.asarray(density, jnp.float32))


@pytest.mark.slow
def test_what_is_pruned_competes_with_its_starting_value_where_that_is_allowed():
    options = {"score": "magnitude", "level_epochs": 1}
    params, train = world().planted.params, world().train
    n = masks.size(params)
    first = flat(
        jax.jit(finders.multishot(CIRCLE, rounds=1, **options))(KEY, params, train, 0.1).mask
    )
    options |= {"rounds": 2, "schedule": up_again}
    stays = jax.jit(finders.multishot(CIRCLE, **options))(KEY, params, train, 0.5)
    np.testing.assert_array_equal(flat(stays.mask), first)
    found = jax.jit(finders.multishot(CIRCLE, allow_revive=True, **options))(
        KEY, params, train, 0.5
    )
    kept, sizes = flat(found.mask), np.abs(flat(params))
    assert kept.sum() == int(masks.number_kept(0.5, n))
    revived, left = kept & ~first, ~kept & ~first
    assert revived.sum() >= kept.sum() - first.sum() > 0
    assert sizes[revived].min() >= sizes[left].max()
