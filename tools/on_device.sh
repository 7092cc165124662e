#!/usr/bin/env bash
# Everything that takes an accelerator, in one command and under nine minutes, the cheapest evidence
# first: tools/on_device.sh [--smoke] [FOLDER]
#
# FOLDER (default: $OUT, else results/on_device) gets three files, brought up to date after each
# step, so that a run that is cut off keeps what was done: summary.jsonl (step, seconds, exit code:
# 124 at its limit, -1 if no time was left), log.txt (device, versions, the end of each step's
# output), results.tar.gz (tables, figures, whole logs). No step's failure stops the others.
#
# --smoke (or SMOKE=1): the smallest form of every step, on a CPU.
# PYTHON: the Python to start from (default: python3). If its jax finds an accelerator, that is used.
# WHEELS: a folder of wheels to install from on machines without a network (default: .whl).
# SECONDS_IN_ALL: the time for all steps (default: 530; smoke: 3000).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD smoke=${SMOKE:-}
if [ "${1:-}" = --smoke ]; then smoke=1 && shift; fi
out=${1:-${OUT:-results/on_device}} python=${PYTHON:-python3} wheels=${WHEELS:-.whl}
total=${SECONDS_IN_ALL:-$([ "$smoke" ] && echo 3000 || echo 530)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/logs"
out=$(cd "$out" && pwd)
: >"$out/summary.jsonl"
: >"$out/log.txt"

pack() {
  tar czf "$out/results.tar.gz.new" -C "$work" --exclude={venv,xla,matplotlib,chunks} . &&
    mv "$out/results.tar.gz.new" "$out/results.tar.gz"
}

step() { # step NAME LIMIT COMMAND...: runs a command for at most LIMIT seconds
  local name=$1 limit=$2 start=$EPOCHREALTIME code left=$((total - SECONDS))
  shift 2
  [ "$smoke" ] && limit=$((10 * limit))
  if ((limit > left)); then limit=$left; fi
  if ((limit < 5)); then
    code=-1 # no time left
  else
    timeout --kill-after=10 "$limit" "$@" >"$work/logs/$name.log" 2>&1
    code=$?
  fi
  awk -v name="$name" -v start="$start" -v end="$EPOCHREALTIME" -v code="$code" 'BEGIN {
    printf "{\"step\": \"%s\", \"seconds\": %.1f, \"code\": %d}\n", name, end - start, code
  }' | tee -a "$out/summary.jsonl"
  { printf '\n== %s, exit code %s: %s\n' "$name" "$code" "$*"; tail -c 4000 "$work/logs/$name.log"; } \
    >>"$out/log.txt" 2>/dev/null
  pack
}

needs() { # what the package and its tests need, without jax
  sed -n '/^install_requires/,/^$/p; /^experiments =/,/^[a-z]/p' setup.cfg | grep -E '^ +[a-z]' |
    grep -v jax | tr -d ' '
  printf '%s\n' hypothesis pytest pytest-xdist 'setuptools>=77'
}

install() { # a virtual environment, on top of the system's packages if its jax has an accelerator
  local code='import jax; raise SystemExit(not "'"$smoke"'" and jax.default_backend() == "cpu")'
  local from=(--retries 1 --timeout 10)
  [ -d "$wheels" ] && from=(--no-index --find-links "$wheels")
  if "$python" -c "$code"; then
    "$python" -m venv --without-pip "$work/venv" || return
    "$python" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
      >"$("$run" -c 'import site; print(site.getsitepackages()[0])')/system.pth"
    needs >"$work/needs.txt"
    "$run" -m pip install "${from[@]}" -r "$work/needs.txt" || # else all that can be had
      while read -r need; do "$run" -m pip install "${from[@]}" "$need"; done <"$work/needs.txt"
    "$run" -m pip install --no-deps --no-build-isolation -e .
  else
    "$python" -m venv "$work/venv" || return
    "$run" -m pip install "${from[@]}" -e ".[experiments,${EXTRA:-cuda12}]" \
      hypothesis pytest pytest-xdist
  fi
}

about() { # device and versions
  nvidia-smi 2>/dev/null
  git -C "$root" rev-parse HEAD 2>/dev/null
  "$run" -c 'import json; from plantjax.jobs.folder import origin; print(json.dumps(origin([])))'
}

run=$work/venv/bin/python
export root work run python wheels smoke JAX_COMPILATION_CACHE_DIR=$work/xla PYTHONUNBUFFERED=1
export PYTHONPATH=$root:$root/experiments:$root/tools MPLCONFIGDIR=$work/matplotlib COLUMNS=160
export XLA_PYTHON_CLIENT_PREALLOCATE=false JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export -f install needs about
[ "$smoke" ] && export JAX_PLATFORMS=cpu

step install 120 bash -c install
step about 20 bash -c about
kind=$(timeout 60 "$run" -c 'import jax; print(jax.devices()[0].device_kind.lower())' 2>/dev/null)
case $kind in
  *h100* | *h200*) target=h100 ;;
  *v6*) target=v6e ;;
  *v5*) target=v5e ;;
  *v4*) target=v4 ;;
  *) target=cpu ;;
esac

# What each step runs, in full and in the smallest form.
tests=(tests/masks tests/test_planting.py tests/scores tests/test_training.py tests/sweeps
  tests/finders/test_contract.py)
programs=(--tasks circle --finders edge_popup synflow100) profiled=(--tasks circle --epochs 1)
profiled+=(--finders edge_popup)
few=(2 16 128 512 2048) many=(16384) budget=full sweep="--tasks circle --depth 5 --width 100"
vgg=(--budget smoke --depth 16 --width 1 --samples 10240)
sweep+=" --finders magnitude edge_popup --densities ticket 0.5 --seeds 12 --epochs 1 --chunk 2"
workers=8 epochs=10
if [ "$smoke" ]; then
  tests=(tests/masks/test_schedules.py tests/scores/test_basic.py) workers=1
  programs=(--tasks relu --finders magnitude --depth 3 --width 8 --networks 2 --epochs 1)
  profiled=("${programs[@]}")
  few=(2) many=(4) budget=smoke vgg=(--budget smoke --depth 16)
  sweep="--tasks relu --depth 3 --width 8 --finders magnitude --seeds 4 --epochs 0 --chunk 2"
  epochs=1
fi

step tests 100 "$run" -m pytest -v -n "$workers" -m 'not slow' -p no:cacheprovider "${tests[@]}"
step compile_for 40 "$run" experiments/compile_for.py "$target" "${programs[@]}" --out "$work/absent"
step estimate 60 "$run" experiments/compile_for.py "$target" "${programs[@]}" --run --out "$work/here"
step benchmark 50 "$run" experiments/benchmark.py --only growth --epochs "$epochs" \
  --networks "${few[@]}" --out "$work/benchmark.json"
step benchmark_large 70 "$run" experiments/benchmark.py --only growth --epochs "$epochs" \
  --networks "${many[@]}" --out "$work/benchmark_large.json"
step fig3 60 "$run" experiments/paper.py fig3 --budget "$budget" --out "$work/fig3"
step fig4 70 "$run" experiments/paper.py fig4 --budget "$budget" --out "$work/fig4"
step chunks 70 "$run" tools/chaos.py --trials sizes --sweep="$sweep" --out "$work/sizes"
step profile 50 "$run" experiments/compile_for.py "$target" "${profiled[@]}" --run --profile \
  --out "$work/profile"
step vgg16 70 "$run" experiments/vgg.py --plugin tools/noise_images.py --data noise32 "${vgg[@]}" \
  --out "$work/vgg16"
[ "$smoke" ] ||
  step peers 40 "$run" experiments/benchmark.py --only peers --quick --out "$work/peers.json"
echo "Results: $out"
