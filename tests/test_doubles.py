"""With `jax_enable_x64` plantjax's own arrays stay single, and doubles of users keep all bits."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import contract
import plantjax as pj
from plantjax import checks, draws, masks, nets
from plantjax.finders import names
from plantjax.masks import topk

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)
WITH_DTYPE = {
    **{f"jnp.{name}": place for name, place in (("zeros", 1), ("ones", 1), ("full", 2))},
    **{f"jnp.{name}": 9 for name in ("arange", "linspace", "eye")},
    **{f"jax.random.{name}": 2 for name in ("normal", "uniform", "gumbel", "bits")},
    "jax.random.randint": 4,
}
"""Functions that make arrays, and the place of their dtype; without it, doubles."""
FILLED = ("masks/groups.py", "masks/topk.py", "masks/thresholds.py")
"""Files that fill arrays with values of the right dtype."""


def own_arrays():
    samples = [pj.TASKS[name].sample(KEY, 200, 0.5) for name in ("circle", "helix")]
    return samples, nets.init(KEY, (2, 8, 3)), draws.permutation(KEY, 9)


def world():
    return pj.sweeps.make_world(KEY, pj.TASKS["circle"], 3, 20, samples=50)


@pytest.mark.slow
def test_own_arrays_are_the_same_with_doubles():
    wanted, shapes = jax.jit(own_arrays)(), jax.eval_shape(world)
    with jax.enable_x64(True):
        found, others = jax.jit(own_arrays)(), jax.eval_shape(world)
        mothers = jax.eval_shape(lambda: [nets.init(KEY, (2, 8, 3), s) for s in nets.SCHEMES])
    for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert [x.dtype for x in jax.tree.leaves(others)] == [x.dtype for x in jax.tree.leaves(shapes)]
    assert {x.dtype for x in jax.tree.leaves(mothers)} == {jnp.dtype(jnp.float32)}


def test_arrays_are_made_with_their_dtype():
    package, unsaid = ROOT / "plantjax", []
    for path in package.rglob("*.py"):
        name = str(path.relative_to(package))
        if name == "theory/sampled.py":  # computes in doubles
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            made = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if made in WITH_DTYPE and not (made == "jnp.full" and name in FILLED):
                said = len(node.args) > WITH_DTYPE[made]
                said |= any(keyword.arg == "dtype" for keyword in node.keywords)
                unsaid += [] if said else [f"{name}:{node.lineno}: {made}"]
    assert not unsaid


VALUES = np.concatenate(
    [
        1.0 + np.arange(8) * 2.0**-52,  # equal in single precision
        -1.0 - np.arange(8) * 2.0**-52,
        [1e300, 1e299, -1e300, -1e299, 5e-324, 0.0, -0.0, -5e-324, np.inf, -np.inf, np.nan, np.nan],
        np.random.default_rng(0).normal(size=20),
    ]
)


def ranks(values):
    ordered = np.unique(values[~np.isnan(values)])
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(ordered, values))


@pytest.mark.parametrize("near", [False, True])
def test_doubles_rank_at_full_precision(near):
    shuffled = np.random.default_rng(1).permutation(VALUES)
    with jax.enable_x64(True):
        values = jnp.asarray(shuffled)
        priority = np.asarray(topk.priorities(KEY, 0, values.size))
        order = np.lexsort((priority, ranks(shuffled)))[::-1]
        select = jax.jit(jax.vmap(masks.reselect, (None, None, 0, 0)))
        wanted = np.zeros((values.size, values.size), bool)
        for k, row in enumerate(wanted, start=1):
            row[order[:k]] = True
        densities = jnp.arange(1, values.size + 1, dtype=jnp.float32) / values.size
        start = jnp.full((values.size, 1), 3 << 30 if near else 0, jnp.uint32)
        found, _ = select(KEY, {"w": values}, densities, start)
    np.testing.assert_array_equal(found["w"], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["channel", "2:4", "live"])
def test_every_scope_sees_the_lower_halves_of_doubles(scope):
    order = np.random.default_rng(2).permuted(np.arange(32).reshape(8, 4), axis=0)
    with jax.enable_x64(True):
        scores = {"layer_00": {"kernel": jnp.asarray(1.0 + order * 2.0**-52)}}
        if scope == "live":
            scores["layer_00"]["bias"] = jnp.zeros(4)
            params = jax.tree.map(jnp.ones_like, scores)
            found = masks.select_live(KEY, scores, params, 16 / 36)
        else:
            found = masks.select(KEY, scores, 0.5, scope)
    kept = np.asarray(found["layer_00"]["kernel"])
    if scope == "live":
        wanted = order >= 16
    elif scope == "2:4":
        parts = order.reshape(2, 4, 4)
        wanted = (parts > np.sort(parts, axis=1)[:, 1:2]).reshape(8, 4)
    else:
        wanted = order > np.sort(order, axis=0)[3]
    np.testing.assert_array_equal(kept, wanted)


@pytest.mark.slow
def test_huge_doubles_are_finite_and_mixed_dtypes_compete():
    with jax.enable_x64(True):
        scores = {"a": jnp.array([1e300, 1e299]), "b": jnp.array([2.0, 3e38], jnp.float32)}
        checks.finite("scores", scores)
        kept = masks.select(KEY, scores, 0.5)
        scores["b"] = jnp.array([2.0, np.inf], jnp.float32)  # beyond 1e300, though single
        best = masks.select(KEY, scores, 0.25)
        [zeros] = topk.low_keys([jnp.array([0.0, -0.0, jnp.nan])])  # -0 equals 0
    np.testing.assert_array_equal(kept["a"], [True, True])
    assert [leaf.tolist() for leaf in best.values()] == [[False, False], [False, True]]
    np.testing.assert_array_equal(zeros[0], [0, 0, 0])
    with pytest.raises(ValueError, match="must be finite"):
        checks.finite("scores", {"a": 1e300})


QUICK = ("snip", "edge_popup", "rigl")
TRACED = sorted({*QUICK} | contract.representatives() & {*pj.FINDERS})
"""A finder of every function, and those of the quick tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TRACED]
)
def test_finders_search_in_single_and_in_double_precision(name):
    """Traced with strict promotion, in which no single number becomes a double unseen."""
    task = pj.TASKS["circle"]
    options = contract.brief(name)
    with jax.enable_x64(True):
        params, data = nets.init(KEY, (2, 8, 8, 4)), task.sample(KEY, 64)
        for dtype in (jnp.float32, jnp.float64):
            given, x = jax.tree.map(lambda leaf, d=dtype: leaf.astype(d), (params, data.x))
            search = names.make(task, name, **options)
            found = jax.eval_shape(search, KEY, given, data._replace(x=x), jnp.float32(0.3))
            kinds = {leaf.dtype for leaf in jax.tree.leaves(found.info)}
            assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {jnp.dtype(dtype)}
            assert dtype == jnp.float64 or kinds <= {jnp.dtype(k) for k in (jnp.float32, jnp.int32)}


@pytest.mark.slow
def test_the_main_script_gives_the_same_table(tmp_path):
    """With the same masks, of which it has a column."""
    command = [
        *(sys.executable, "experiments/seek.py", "--tasks", "relu", "--depth", "3"),
        *("--width", "24", "--finders", "snip", "--seeds", "2"),
        *("--densities", "0.2", "--epochs", "1", "--out"),
    ]
    tables = []
    for flag in ("0", "1"):
        environment = os.environ | {"JAX_ENABLE_X64": flag, "PYTHONPATH": str(ROOT)}
        out = tmp_path / flag
        subprocess.run([*command, str(out)], check=True, cwd=ROOT, env=environment)
        tables.append(pd.read_csv(out / "results.csv").drop(columns="seconds"))
    pd.testing.assert_frame_equal(*tables, rtol=0.05, atol=0.01)
