"""Argument checks: ValueErrors that name the argument, its value and what is allowed.

Structure, shape and dtype are always checked. Values are checked only if they are concrete, so
checked functions still work under jit and vmap.
"""

import difflib
import re
from collections.abc import Collection
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from plantjax.types import Batch, Prunable

Value = TypeVar("Value")


def is_concrete(*trees: Any) -> bool:
    """True if no leaf of the trees is a tracer, so that its values can be read."""
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(trees))


def path_name(path: Any) -> str:
    """The path of a leaf as users write it, such as `layer_00/kernel`.

    Variables of Flax NNX and partitioned arrays of Linen, which hold their array as an attribute
    `value`, have the path of the variable.

    >>> import jax
    >>> [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path({"a": {"b": 1.0}})]
    ['a/b']
    """
    return jax.tree_util.keystr(path[: depth(path)], simple=True, separator="/")


def depth(path: Any) -> int:
    """The number of keys in the path of a leaf, see `path_name`."""
    boxed = len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value")
    return len(path) - boxed


def shapes(tree: Any, most: int = 8) -> str:
    """The shapes of the first leaves by path, for messages.

    >>> shapes({"layer_00": {"bias": np.zeros(3), "kernel": np.zeros((2, 3))}}, most=1)
    'layer_00/bias (3,) and 1 more'
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    named = [f"{path_name(path)} {np.shape(leaf)}".strip() for path, leaf in pairs[:most]]
    more = f" and {len(pairs) - most} more" if len(pairs) > most else ""
    return (", ".join(named) or "no arrays") + more


def natural(name: str) -> list[Any]:
    """A sort key for names in natural order: numbers in them count as numbers.

    >>> sorted(["Dense_10", "Dense_2"], key=natural)
    ['Dense_2', 'Dense_10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def divisor(x: jax.Array) -> jax.Array:
    """Replaces entries that are not positive by 1, so that dividing 0 by 0 gives 0 instead of NaN.

    >>> import jax.numpy as jnp
    >>> divisor(jnp.array([2.0, 0.0])).tolist()
    [2.0, 1.0]
    """
    return jnp.where(x > 0, x, jnp.ones_like(x))


def integer(name: str, value: Any, minimum: int, maximum: int | None = None) -> None:
    """Raises unless `value` is a Python integer in [minimum, maximum].

    >>> integer("epochs", -1, 0)
    Traceback (most recent call last):
    ValueError: epochs must be an integer of at least 0, got -1.
    """
    upper = "" if maximum is None else f" and at most {maximum}"
    is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_int or value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} must be an integer of at least {minimum}{upper}, got {value!r}.")


def choice(name: str, value: Any, allowed: Collection[str]) -> None:
    """Raises unless `value` is one of the `allowed` names.

    >>> choice("rule", "best", ("norm", "paper"))
    Traceback (most recent call last):
    ValueError: rule must be one of norm, paper, got 'best'.
    >>> choice("rule", "papre", ("norm", "paper"))
    Traceback (most recent call last):
    ValueError: rule must be one of norm, paper, got 'papre'. Did you mean 'paper'?
    """
    if value not in allowed:
        known = ", ".join(allowed)
        raise ValueError(f"{name} must be one of {known}, got {value!r}.{meant(value, allowed)}")


def meant(value: Any, allowed: Collection[str]) -> str:
    """The allowed name that is most like the given one, as a question, or nothing."""
    close = difflib.get_close_matches(str(value), allowed, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def missing(name: Any, known: Collection[str]) -> KeyError:
    """The error for a name that a registry does not have."""
    return KeyError(f"{name!r} is not among the names.{meant(name, known)}")


class Names(dict[str, Value]):
    """A registry, a dict that asks which name was meant where one is missing.

    >>> Names({"circle": 1})["cirle"]
    Traceback (most recent call last):
    KeyError: "'cirle' is not among the names. Did you mean 'circle'?"
    """

    def __missing__(self, name: str) -> Value:
        """Raises KeyError."""
        raise missing(name, self)


def interval(name: str, value: Any, low: float, high: float, open_low: bool = False) -> None:
    """Raises unless all (concrete) values lie in [low, high], or in (low, high]."""
    if not is_concrete(value):
        return
    values = np.asarray(value, np.float64)
    inside = (values > low if open_low else values >= low) & (values <= high)
    if not inside.all():  # NaN compares False, so it is refused as well
        bracket = "(" if open_low else "["
        raise ValueError(f"{name} must lie in {bracket}{low:g}, {high:g}], got {value}.")


def options(name: str, given: Collection[str], allowed: Collection[str]) -> None:
    """Raises if one of the given options is not among those that `name` takes."""
    for option in given:
        if option not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise ValueError(
                f"{option} is no option of {name}, which takes {known}.{meant(option, allowed)}"
            )


def positive(name: str, value: Any) -> None:
    """Raises unless the (concrete) number is above 0 and a finite float32."""
    interval(name, value, 0.0, float(np.finfo(np.float32).max), open_low=True)


def density(value: Any) -> None:
    """Raises unless the (concrete) density lies in (0, 1]."""
    interval("density", value, 0.0, 1.0, open_low=True)


def is_float(leaf: Any) -> bool:
    """True if a leaf is a float array or a float.

    >>> is_float(1.0), is_float(np.arange(2)), is_float(jax.nn.relu)
    (True, False, False)
    """
    return bool(jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating))


def is_key(leaf: Any) -> bool:
    """True if a leaf is an array of typed random keys.

    >>> is_key(jax.random.key(0)), is_key(1.0)
    (True, False)
    """
    return bool(jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jax.dtypes.extended))


def finite(name: str, tree: Any, prunable: Prunable | None = None) -> None:
    """Raises if a leaf is not a float array, or a (concrete) leaf contains NaN or infinity.

    Leaves that are not prunable may be integers, random keys or anything else, but no NaN.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = f"{name}[{path_name(path)}]" if path else name
        if not is_float(leaf):
            if prunable is not None and not prunable(path_name(path)):
                continue
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            excluded = "" if prunable is None else ", or not prunable"
            raise ValueError(f"{where} must be a float array{excluded}, got {kind}.")
        if is_concrete(leaf) and not _all_finite(leaf):
            raise ValueError(f"{where} must be finite, got NaN or infinite entries.")


def _all_finite(leaf: Any) -> bool:
    """Whether all numbers are finite in the precision that JAX gives them."""
    widest = jax.dtypes.canonicalize_dtype(np.float64)  # single, unless JAX has doubles
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.asarray(leaf, widest)).all())


def same_structure(name: str, tree: Any, like_name: str, like: Any) -> None:
    """Raises unless both trees have the same structure and shapes."""
    if str(jax.tree.structure(tree)) != str(jax.tree.structure(like)):
        raise ValueError(
            f"{name} must have the tree structure of {like_name}, {_difference(tree, like)}."
        )
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(like), strict=True
    ):
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name}[{path_name(path)}] must have the shape {jnp.shape(other)} that it has in "
                f"{like_name}, got {jnp.shape(leaf)}."
            )


def _difference(tree: Any, like: Any) -> str:
    """Where two trees of different structure differ, in a few words."""
    found, wanted = (
        {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(part)}
        for part in (tree, like)
    )
    if found != wanted:
        paths = sorted(wanted - found, key=natural) or sorted(found - wanted, key=natural)
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        kind = "lacks" if wanted - found else "has, beyond those,"
        return (
            f"got one that {kind} {', '.join(path or 'a single leaf' for path in paths[:3])}{more}"
        )
    kinds = " instead of ".join(type(part).__name__ for part in (tree, like))
    return f"got one of the same paths in other containers ({kinds})"


def mask(name: str, tree: Any, like_name: str, like: Any) -> None:
    """Raises unless `tree` is a tree of bool arrays with the structure and shapes of `like`."""
    same_structure(name, tree, like_name, like)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.result_type(leaf) != jnp.bool_:
            raise ValueError(
                f"{name}[{path_name(path)}] must be a bool array, got {jnp.result_type(leaf)}."
            )


def outputs_and_labels(outputs: Any, y: Any) -> None:
    """Raises unless y holds one label in [0, O) for each row of outputs [N, O]."""
    if jnp.ndim(outputs) != 2 or jnp.shape(y) != jnp.shape(outputs)[:1]:
        raise ValueError(
            "outputs must be [N, O] and labels y [N], "
            f"got shapes {jnp.shape(outputs)} and {jnp.shape(y)}."
        )
    if not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        raise ValueError(f"labels y must be integers, got {jnp.result_type(y)}.")
    labels(y, jnp.shape(outputs)[1])


def labels(y: Any, n_out: int) -> None:
    """Raises if y are (concrete) integers outside [0, n_out)."""
    if jnp.issubdtype(jnp.result_type(y), jnp.integer) and is_concrete(y) and np.size(y):
        low, high = np.asarray(y).min(), np.asarray(y).max()
        if low < 0 or high >= n_out:
            raise ValueError(f"labels y must lie in [0, {n_out}), got {low} to {high}.")


def outputs_and_values(outputs: Any, y: Any) -> None:
    """Raises unless outputs and y are float arrays of one shape [N, O]."""
    if jnp.ndim(outputs) != 2 or jnp.shape(outputs) != jnp.shape(y):
        raise ValueError(
            "outputs and y must both be [N, O], "
            f"got shapes {jnp.shape(outputs)} and {jnp.shape(y)}."
        )
    if not jnp.issubdtype(jnp.result_type(y), jnp.floating):
        raise ValueError(f"y must be a float array, got {jnp.result_type(y)}.")


def batch(data: Batch, name: str = "data") -> None:
    """Raises unless x and y have the same number of samples, at least one, and x is float."""
    if jnp.ndim(data.x) < 2 or jnp.ndim(data.y) < 1 or data.x.shape[0] != data.y.shape[0]:
        raise ValueError(
            f"{name} must hold x [N, ...] and y [N] or [N, O] with the same N, "
            f"got shapes {jnp.shape(data.x)} and {jnp.shape(data.y)}."
        )
    if data.x.shape[0] == 0:
        raise ValueError(f"{name} must hold at least one sample, got none.")
    finite(f"{name}.x", data.x)
