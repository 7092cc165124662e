"""Balancing: runs a network on numbers with exponents of their own, so that none is out of range.

Every array is kept as `value * 2^power`, with a largest entry of value near one. Powers of two
cause no rounding, so wherever plain floats suffice, the values are theirs, bit for bit. The network
is traced, and each operation is replaced by its rule: products add the powers, sums need equal
ones. Operations without a rule get plain floats. So shortcuts, names and structure do not matter.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from plantjax import checks
from plantjax.types import Params


class Scaled(NamedTuple):
    """A float array as value * 2^power; the power is int32 []."""

    value: jax.Array
    power: jax.Array


def value_and_grad(
    function: Callable[[Params], jax.Array], params: Params
) -> tuple[Params, Params]:
    """Parameters and the gradient of a scalar function, both up to powers of two.

    Args:
      function: `params -> scalar`; it may be far out of the range of floats.
      params: pytree of float arrays.

    Returns:
      (p, g) with the structure of the params: p is a leaf of `params` times a power of two, and
      p * g is that leaf times its gradient, times one power of two for all leaves.

    >>> import jax.numpy as jnp
    >>> far = lambda p: 1e30 * p["a"] * (1e30 * p["b"])
    >>> p, g = value_and_grad(far, {"a": jnp.float32(1.0), "b": jnp.float32(2.0)})
    >>> [float(p[name] * g[name]) for name in "ab"]  # 2e60 times a power of two
    [0.6223..., 0.6223...]
    """
    closed = jax.make_jaxpr(function)(params)
    leaves, structure = jax.tree.flatten(params)
    scaled = [_unit(Scaled(leaf, jnp.int32(0))) for leaf in leaves]

    def run(values: list[jax.Array]) -> jax.Array:
        inputs = [Scaled(value, power) for value, (_, power) in zip(values, scaled, strict=True)]
        (result,) = _run(closed.jaxpr, closed.consts, inputs)
        return _unit(_scaled(result)).value

    values = [value for value, _ in scaled]
    gradient = jax.grad(run)(values)
    return jax.tree.unflatten(structure, values), jax.tree.unflatten(structure, gradient)


def times_power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """Multiplies by 2^exponent like `ldexp`, in a fifth of the time.

    It multiplies by three powers of two in the range of floats, which together reach from the
    largest float to zero and back.

    >>> import jax.numpy as jnp
    >>> float(times_power(jnp.float32(3.0), jnp.int32(-1)))
    1.5
    """
    exponent = jnp.clip(exponent, -378, 378)
    third = exponent // 3
    for part in (third, third, exponent - 2 * third):
        x = x * jnp.ldexp(jnp.ones((), x.dtype), part)
    return x


Operands = Sequence[Any]
"""Inputs of an operation: Scaled for floats, arrays for everything else."""


def _run(jaxpr: Any, consts: Sequence[Any], inputs: Operands) -> list[Any]:
    """Runs a traced function on scaled numbers."""
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        results = _step(eqn, [_scaled(read(atom)) for atom in eqn.invars])
        known |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(eqn: Any, operands: Operands) -> list[Any]:
    """The results of one operation."""
    name = eqn.primitive.name
    if name in CALLS:
        inner = eqn.params[CALLS[name]]
        jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        return _run(jaxpr, consts, operands)
    if name == "scan":
        return _scan(eqn, operands)
    floats = [operand for operand in operands if isinstance(operand, Scaled)]
    if not floats or name not in RULES:
        return _bind(eqn, [_plain(operand) for operand in operands])
    rule = RULES[name]
    values, power = rule(operands, eqn.params)
    results = [Scaled(r, power) if _is_float(r) else r for r in _bind(eqn, values)]
    if rule is _same:  # the largest entry stays near one
        return results
    return [_unit(result) for result in results]


def _scan(eqn: Any, operands: Operands) -> list[Any]:
    """A scan whose body runs on scaled numbers."""
    closed, first = eqn.params["jaxpr"], eqn.params["num_consts"]
    last = first + eqn.params["num_carry"]
    fixed, start, stacked = operands[:first], operands[first:last], operands[last:]
    powers = [part.power if isinstance(part, Scaled) else None for part in stacked]

    def body(carry: list[Any], values: list[Any]) -> tuple[list[Any], list[Any]]:
        pairs = zip(values, powers, strict=True)
        here = [value if power is None else Scaled(value, power) for value, power in pairs]
        results = [_scaled(r) for r in _run(closed.jaxpr, closed.consts, [*fixed, *carry, *here])]
        return results[: len(start)], results[len(start) :]

    values = [_value(part) for part in stacked]
    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    carry, rows = jax.lax.scan(body, list(start), values, **options)
    return carry + [_joined(row) if isinstance(row, Scaled) else row for row in rows]


def _joined(rows: Scaled) -> Scaled:
    """Stacked rows, each with its own power, as one array with one power."""
    power = jnp.max(rows.power)
    shift = (rows.power - power).reshape(-1, *[1] * (rows.value.ndim - 1))
    return _unit(Scaled(times_power(rows.value, shift), power))


def _same(operands: Operands, params: Any) -> tuple[list[Any], jax.Array]:
    """All floats brought to the power of the largest, as for sums and comparisons."""
    del params
    powers = [part.power for part in operands if isinstance(part, Scaled)]
    # XLA does not fuse a sort; a maximum it would compute anew, with all before it, at every use.
    power = powers[0] if len(powers) == 1 else jnp.sort(jnp.stack(powers))[-1]
    values = [
        times_power(part.value, part.power - power) if isinstance(part, Scaled) else part
        for part in operands
    ]
    return (values if len(powers) > 1 else [_value(part) for part in operands]), power


def _product(operands: Operands, params: Any) -> tuple[list[Any], jax.Array]:
    del params
    return [part.value for part in operands], sum(part.power for part in operands)


def _quotient(operands: Operands, params: Any) -> tuple[list[Any], jax.Array]:
    del params
    above, below = operands
    return [above.value, below.value], above.power - below.power


def _power(operands: Operands, params: Any) -> tuple[list[Any], jax.Array]:
    (part,) = operands
    return [part.value], params.get("y", 2) * part.power


def _root(sign: int) -> Callable[[Operands, Any], tuple[list[Any], jax.Array]]:
    def rule(operands: Operands, params: Any) -> tuple[list[Any], jax.Array]:
        del params
        (part,) = operands
        return [times_power(part.value, part.power % 2)], sign * (part.power // 2)

    return rule


CALLS = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "checkpoint", "remat2"), "jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "core_call"), "call_jaxpr"),
}
"""Operations that run a traced function, and the parameter that holds it."""

RULES: dict[str, Callable[[Operands, Any], tuple[list[Any], jax.Array]]] = {
    **dict.fromkeys(
        (
            *("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev", "copy"),
            *("neg", "abs", "convert_element_type", "stop_gradient", "optimization_barrier"),
            *("slice", "dynamic_slice", "gather", "reduce_sum", "reduce_max", "reduce_min"),
            *("reduce_window_sum", "reduce_window_max", "reduce_window_min", "cumsum"),
            *("add", "sub", "add_any", "max", "min", "concatenate", "select_n", "pad", "clamp"),
            *("dynamic_update_slice", "scatter", "scatter-add", "sharding_constraint"),
            *("gt", "ge", "lt", "le", "eq", "ne", "argmax", "argmin", "sort"),
        ),
        _same,
    ),
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), _product),
    "div": _quotient,
    "integer_pow": _power,
    "square": _power,
    "sqrt": _root(1),
    "rsqrt": _root(-1),
}
"""How operations treat powers: `(operands, parameters) -> (plain operands, power of results)`."""


def _bind(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """The operation on plain arrays."""
    result = eqn.primitive.bind(*values, **eqn.params)
    return list(result) if eqn.primitive.multiple_results else [result]


def _unit(part: Scaled) -> Scaled:
    """The same number, with a largest entry in [0.5, 1); zeros get the lowest power."""
    sizes = jnp.abs(jax.lax.stop_gradient(part.value))
    peak = jnp.max(jnp.where(jnp.isfinite(sizes), sizes, 0.0), initial=0.0)
    _, exponent = jnp.frexp(checks.divisor(peak))
    power = jnp.where(peak > 0, part.power + exponent, _LOWEST)
    return Scaled(times_power(part.value, -exponent), power)


_LOWEST = jnp.iinfo(jnp.int32).min // 2


def _scaled(value: Any) -> Any:
    """Floats as Scaled, everything else as it is."""
    if isinstance(value, Scaled) or not _is_float(value):
        return value
    return _unit(Scaled(jnp.asarray(value), jnp.int32(0)))


def _value(part: Any) -> Any:
    return part.value if isinstance(part, Scaled) else part


def _plain(part: Any) -> Any:
    return times_power(part.value, part.power) if isinstance(part, Scaled) else part


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)
