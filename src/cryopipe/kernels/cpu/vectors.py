"""What the compiler does not find by itself: several neighbours added to or transposed at once, memory asked for early.

All are LLVM instructions that every processor has or ignores; they change speed, not results.
"""

# The types of compiled functions are those of the call, not of a signature.
# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="untyped-decorator, import-untyped"

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_INT8, _INT32 = ir.IntType(8), ir.IntType(32)
_FOUR = ir.VectorType(ir.FloatType(), 4)
#: a product and the sum it enters may be rounded together
_FLAGS = ("contract", "nsz")


def _address(context, builder, kind, array, index):
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    return builder.gep(data, [index])


def _vector(builder, values):
    result = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for place, value in enumerate(values):
        result = builder.insert_element(result, value, ir.Constant(_INT32, place))
    return result


@intrinsic
def add_scaled(typingctx, array, at, factor, values):
    """``array[at : at + n] += factor * values`` for a 1-D contiguous array and a tuple of n scalars of its type.

    Parameters
    ----------
    typingctx : object
        Of Numba; the call does not state it.
    array : float array [m]
        Changed in place.
    at : int
        First place that is changed.
    factor : float
        Of the type of the array.
    values : tuple of float
        Of the type of the array.
    """
    count = len(values)

    def generate(context, builder, signature, arguments):
        kind = ir.VectorType(context.get_data_type(signature.args[0].dtype), count)
        place = builder.bitcast(_address(context, builder, signature.args[0], *arguments[:2]), kind.as_pointer())
        step = _vector(builder, [builder.extract_value(arguments[3], i) for i in range(count)])
        product = builder.fmul(_vector(builder, [arguments[2]] * count), step, flags=_FLAGS)
        # alignment: the index is any, so no more than that of a single element can be promised
        alignment = signature.args[0].dtype.bitwidth // 8
        old = builder.load(place, align=alignment)
        builder.store(builder.fadd(old, product, flags=_FLAGS), place, align=alignment)
        return context.get_dummy_value()

    return types.void(array, at, factor, values), generate


def _ask(builder, context, signature, arguments, write):
    pointer = _INT8.as_pointer()
    place = builder.bitcast(_address(context, builder, signature.args[0], *arguments), pointer)
    kind = ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32])
    ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    keep_closest, data = 3, 1
    builder.call(ask, [place, *(ir.Constant(_INT32, v) for v in (write, keep_closest, data))])
    return context.get_dummy_value()


@intrinsic
def prefetch(typingctx, array, at):
    """Ask for the cache line of ``array[at]``, to be read soon; an index outside the array does no harm."""

    def generate(context, builder, signature, arguments):
        return _ask(builder, context, signature, arguments, 0)

    return types.void(array, at), generate


@intrinsic
def prefetch_to_write(typingctx, array, at):
    """Ask for the cache line of ``array[at]``, to be written soon; an index outside the array does no harm."""

    def generate(context, builder, signature, arguments):
        return _ask(builder, context, signature, arguments, 1)

    return types.void(array, at), generate


@intrinsic
def transpose_four(typingctx, out, start, stride, flat, a, b, c, d):
    """Read 4 floats at each of ``flat[a], flat[b], flat[c], flat[d]`` and write them as columns of a 4 x 4 block.

    The j-th floats of the four come to ``out[start + j stride : start + j stride + 4]``. Both arrays are flat float32.

    Parameters
    ----------
    typingctx : object
        Of Numba; the call does not state it.
    out : float32 [m]
        Receives the block.
    start, stride : int
        First place of the block, and places between its columns.
    flat : float32 [l]
        What is read.
    a, b, c, d : int
        Where the four groups of four begin.
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
            return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT32, 4), list(lanes)))

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
