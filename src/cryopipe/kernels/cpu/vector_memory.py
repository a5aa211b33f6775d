"""Loads that Numba has no word for: prefetching a cache line, and reading pairs of complex numbers transposed."""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_INT = ir.IntType(32)
_FOUR = ir.VectorType(ir.FloatType(), 4)


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]`` without waiting for it."""

    def code(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        at = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [at.type, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [at, _INT(0), _INT(3), _INT(1)])  # to read; into all caches; data
        return context.get_dummy_value()

    return types.void(array, index), code


@intrinsic
def transpose_four(typing: Any, out: Any, start: Any, stride: Any, flat: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Read 4 floats at each of ``flat[a], flat[b], flat[c], flat[d]`` and write them as columns of a 4 x 4 block.

    The j-th floats of the four come to ``out[start + j stride : start + j stride + 4]``. Both arrays are flat float32.
    """

    def code(context, builder, signature, values):
        target = context.make_array(signature.args[0])(context, builder, values[0]).data
        source = context.make_array(signature.args[3])(context, builder, values[3]).data
        loaded = []
        for index in values[4:]:
            quad = builder.load(builder.bitcast(builder.gep(source, [index]), _FOUR.as_pointer()))
            quad.align = 4
            loaded.append(quad)

        def mixed(first, second, *lanes):
            return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT, 4), list(lanes)))

        low = mixed(loaded[0], loaded[1], 0, 4, 1, 5), mixed(loaded[2], loaded[3], 0, 4, 1, 5)
        high = mixed(loaded[0], loaded[1], 2, 6, 3, 7), mixed(loaded[2], loaded[3], 2, 6, 3, 7)
        rows = [mixed(*half, *lanes) for half in (low, high) for lanes in ((0, 1, 4, 5), (2, 3, 6, 7))]
        at = values[1]
        for row in rows:
            stored = builder.store(row, builder.bitcast(builder.gep(target, [at]), _FOUR.as_pointer()))
            stored.align = 4
            at = builder.add(at, values[2])
        return context.get_dummy_value()

    return types.void(out, start, stride, flat, a, b, c, d), code
