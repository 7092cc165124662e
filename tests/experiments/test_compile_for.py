"""compile_for.py on this machine, and the reader of compiled programs."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import compile_for
import scripting
from compiling import program_text, targets
from plantjax.jobs import InputError
from plantjax.nets import convnets
from scripting import cache

__all__ = ["cache"]

PROGRAM = """HloModule example, is_scheduled=true

%fused (p: f32[9,8], i: s32[]) -> f32[1,8] {
  %p = f32[9,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  ROOT %s = f32[1,8]{1,0} dynamic-slice(%p, %i, %z), dynamic_slice_sizes={1,8}
}

%inner (a: (s32[], f32[1,8])) -> (s32[], f32[1,8]) {
  %a = (s32[], /*index=1*/f32[1,8]{1,0}) parameter(0)
  %g = f32[1,8]{1,0} get-tuple-element(%a), index=1
  %n = f32[1,8]{1,0} negate(%g)
  %j = s32[] get-tuple-element(%a), index=0
  ROOT %t = (s32[], f32[1,8]{1,0}) tuple(%j, %n)
}

%outer (b: (s32[], f32[9,8], f32[8,4])) -> (s32[], f32[9,8], f32[8,4]) {
  %b = (s32[], f32[9,8]{1,0}, f32[8,4]{1,0}) parameter(0)
  %k = s32[] get-tuple-element(%b), index=0
  %x = f32[9,8]{1,0} get-tuple-element(%b), index=1
  %w = f32[8,4]{1,0} get-tuple-element(%b), index=2
  %row = f32[1,8]{1,0} fusion(%x, %k), kind=kLoop, calls=%fused
  %u = (s32[], f32[1,8]{1,0}) tuple(%k, %row)
  %v = (s32[], f32[1,8]{1,0}) while(%u), condition=%c, body=%inner
  %y = f32[1,8]{1,0} get-tuple-element(%v), index=1
  %d = f32[1,4]{1,0} dot(%y, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %r = (s32[], f32[9,8]{1,0}, f32[8,4]{1,0}) tuple(%k, %x, %w)
}

ENTRY %main (q: (s32[], f32[9,8], f32[8,4])) -> (s32[], f32[9,8], f32[8,4]) {
  %q = (s32[], f32[9,8]{1,0}, f32[8,4]{1,0}) parameter(0)
  %e = (s32[], f32[9,8]{1,0}, f32[8,4]{1,0}) copy(%q)
  ROOT %l = (s32[], f32[9,8]{1,0}, f32[8,4]{1,0}) while(%e), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"7"}}
}
"""  # noqa: E501


def test_loops_kernels_and_costs_by_hand():
    outer, inner = program_text.loops(PROGRAM)
    assert (outer.name, outer.depth, outer.trips, outer.kernels) == ("l", 0, 7, 2)
    assert (inner.name, inner.depth, inner.trips, inner.kernels) == ("v", 1, None, 1)
    row, product, index = 2 * 8 * 4, (8 + 32 + 4) * 4, 4
    assert outer.bytes == row + index + product
    assert outer.operations == 2 * 4 * 8
    assert inner.bytes == 2 * 8 * 4
    assert program_text.kernels(PROGRAM) == 1


CONDITION = """%c (a: (s32[], f32[1,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(8)
  %a.1 = (s32[], f32[1,8]{1,0}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%a.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%at, %limit), direction=LT, metadata={op_name="lt"}
}

"""


def test_passes_are_counted_where_the_program_does_not_tell_them():
    head, rest = PROGRAM.split("%inner (a", 1)
    told = f"{head}{CONDITION}%inner (a{rest}"
    step = "  %o = s32[] constant(1)\n  %jc = s32[] copy(%j)\n  %j2 = s32[] add(%jc, %o)\n"
    grown = told.replace("tuple(%j, %n)", "tuple(%j2, %n)").replace(
        "  ROOT %t =", f"{step}  ROOT %t ="
    )
    assert [loop.trips for loop in program_text.loops(grown)] == [7, 8]
    for text in (told, grown.replace("constant(1)", "constant(2)"), grown.replace("LT", "NE")):
        assert [loop.trips for loop in program_text.loops(text)] == [7, None]
    beyond = grown.replace("compare(%at, %limit)", "compare(%at, %other)")
    assert [loop.trips for loop in program_text.loops(beyond)] == [7, None]


def test_the_estimate_is_held_up_by_the_slowest_part():
    launches = program_text.seconds(PROGRAM, 1e30, 1e30, 1.0)
    assert launches == pytest.approx(1 + 7 * (2 + 1))
    products = program_text.seconds(PROGRAM, 64.0, 1e30, 0.0)
    assert products == pytest.approx(7 * 1.0)


def test_batches_of_products_that_tpus_write_as_dilated_convolutions():
    text = """ENTRY %main (p: f32[64,32,10], w: f32[64,10,7]) -> f32[64,32,7] {
  %p = f32[64,32,10]{2,1,0:T(8,128)} parameter(0)
  %w = f32[64,10,7]{2,1,0:T(8,128)} parameter(1)
  ROOT %c = f32[64,32,7]{2,1,0:T(8,128)} convolution(%p, %w), window={size=64 stride=63 lhs_dilate=64}, dim_labels=0bf_0io->0bf
}
"""  # noqa: E501
    assert program_text.seconds(text, 1.0, 1e30, 0.0) == 64 * 2 * 32 * 10 * 7


def test_a_compiled_scan_is_read():
    def steps(x):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ x), None), x, length=11)[0]

    text = jax.jit(steps).lower(jnp.ones((6, 6))).compile().as_text()
    (loop,) = program_text.loops(text)
    assert loop.trips == 11
    assert loop.operations == 2 * 6**3
    assert 1 <= loop.kernels <= 6


@pytest.mark.slow
def test_it_compiles_for_this_machine_and_goes_on(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(convnets.VGGS, 11, ((32,), (64,)))  # VGG11's take long to compile
    words = ["cpu", "--tasks", "relu", "--finders", "snip", "--depth", "3", "--width", "12"]
    words += ["--networks", "2", "--epochs", "1", "--run", "--profile", "--out", str(tmp_path)]
    words += ["--vgg", "smoke"]
    compile_for.main(words)
    rows = json.loads((tmp_path / "programs.json").read_text())
    wanted = [f"relu {name}" for name in ("world", "evaluate", "train", "snip")]
    wanted += [f"vgg {n}" for n in ("world", "train", "multishot_synflow", "edge_popup_levels")]
    assert [row["id"] for row in rows] == wanted
    assert [row["networks"] for row in rows] == [2] * 4 + [1] * 4
    assert all(row["compile_seconds"] > 0 and row["estimated_seconds"] > 0 for row in rows)
    train = next(row for row in rows if row["id"] == "relu train")
    assert max(loop["trips"] or 0 for loop in train["loops"]) == 9000 // 32
    assert all(loop["trips"] for loop in train["loops"])
    assert all(row["measured_seconds"] > 0 for row in rows[:4])
    lines = [line for line in train["profile"] if line["events"]]
    assert all(line["longest"][0]["seconds"] <= line["seconds"] * 1.001 for line in lines)
    assert lines
    capsys.readouterr()
    compile_for.main(words)
    assert json.loads((tmp_path / "programs.json").read_text()) == rows
    assert "relu snip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cpu", "--networks", "1"], "--networks must be an integer of at least 2, got 1"),
        (["cpu", "--chips", "0"], "--chips must be an integer of at least 1, got 0"),
        (["cpu", "--finders", "x"], "--finders must be one of"),
        (["cpu", "--profile"], "--profile goes with --run"),
    ],
)
def test_bad_options_are_refused(words, message, tmp_path):
    with pytest.raises(InputError, match=message):
        compile_for.main([*words, "--out", str(tmp_path / "out")])


def test_a_compiler_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(targets.PACKAGES, "tpu", ("no-such-package",))
    with pytest.raises(InputError, match=r"needs the package no-such-package.*experiments,tpu"):
        compile_for.main(["v5e"])


def test_a_wrong_target_is_one_line():
    command = [sys.executable, "experiments/compile_for.py", "abacus"]
    ended = subprocess.run(command, cwd=scripting.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "h100" in ended.stderr
