#!/usr/bin/env bash
# Validates cryopipe on a GPU: the self-test, every test marked gpu, and every benchmark that knows --device gpu; one table at the end.
#
#   pip install -e '.[dev,gpu-cuda12]'      (or gpu-cuda13)
#   tools/gpu_check.sh [folder for the logs]
#
# Exit: 0 all passed, 1 something failed, 3 no CUDA kernel can run here (nothing was checked).
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
LOGS=${1:-$(mktemp -d)}
mkdir -p "$LOGS" || exit 1

reason=$("$PYTHON" -c 'from cryopipe.kernels.devices import gpu_unavailable_reason as why; print(why() or "")') || exit 1
if [ -n "$reason" ]; then
    echo "gpu_check: nothing was checked: $reason."
    exit 3
fi

rows=()
failed=0
# name, command...: runs it into a log and notes verdict, seconds and the last telling line
check() {
    local name=$1 log start verdict=ok
    shift
    log="$LOGS/${name//[^A-Za-z0-9_]/_}.log"
    start=$SECONDS
    echo "== $name: $*"
    "$@" >"$log" 2>&1 || { verdict=FAILED; failed=1; tail -n 40 "$log"; }
    rows+=("$(printf '%-28s %-7s %5d s  %s' "$name" "$verdict" $((SECONDS - start)) "$(summary "$log")")")
}
summary() { grep -E 'passed|failed|all checks|checks failed|GB/s|^\| cryopipe \|' "$1" | tail -n 1 | cut -c 1-110; }

check "self-test" "$PYTHON" -c 'from cryopipe.cli.doctor import doctor; raise SystemExit(doctor())'
check "tests marked gpu" "$PYTHON" -m pytest -m gpu -q tests
# a skipped gpu test here means that the machine and the tests disagree about the GPU
if grep -qE '[0-9]+ skipped' "$LOGS/tests_marked_gpu.log"; then
    rows+=("tests marked gpu             FAILED         some were skipped although a kernel runs: see the log")
    failed=1
fi
for file in benchmarks/*/*.py; do
    benchmark=${file%.py}
    benchmark=${benchmark//\//.}
    "$PYTHON" -m "$benchmark" --help 2>/dev/null | grep -qE -- '--device .*gpu' || continue
    size=()
    # the tutorial's size, whose bar is 60 s
    [ "$benchmark" = benchmarks.particles.refinement ] && size=(--particles 3400 --box 250 --pixel 0.7425 --snr 0.015 --threads "$(nproc)")
    check "$benchmark" "$PYTHON" -m "$benchmark" --device gpu "${size[@]}"
    grep -E '^[a-z_]+( \([0-9a-z ]+\))? .*%' "$LOGS/${benchmark//[^A-Za-z0-9_]/_}.log"
done

echo
"$PYTHON" -c 'from cryopipe.selftest.machine import device_facts; print("\n".join(device_facts()))'
printf '%s\n' "${rows[@]}"
echo "logs: $LOGS"
exit $failed
