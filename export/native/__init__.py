"""The step as one C function: a static graph is read, laid out in memory and written as C, which the device's compiler builds.

    graph.py     the ONNX graph: shapes, constants, who reads what
    values.py    where a tensor lies: a buffer, and numpy's offsets and strides into it
    layout.py    which tensors share a buffer: views, and parts that are written where they will be read
    loops.py     C for what works element by element, for reductions, softmax, normalisation and copies
    vectors.py   C for vectors of any machine
    products.py  C for matrix products and convolutions, their accumulators in registers
    program.py   the nodes in order, the scratch memory, the whole C file
    compiler.py  the C compiler: what its vectors look like here, and the library that it makes
    ready.py     the library of a bundle's graph: found in this user's cache, or built and proven

Why: outside its frame CNN a step is some 340 nodes that compute next to nothing, and in ONNX Runtime their dispatch costs more
than their arithmetic (docs/speed.md).
"""
