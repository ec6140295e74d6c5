"""Vectors in C by GCC's and Clang's own types, so that one text serves every machine: 1, 2, 4, 8 or 16 floats."""

from __future__ import annotations

_WIDTHS = (2, 4, 8, 16)


def pieces(width: int, lanes: int) -> list[tuple[int, int]]:
    """A row of `width` floats as vectors: (first column, lanes), the widest first."""
    found, at = [], 0
    while at < width:
        n = lanes
        while n > width - at:
            n //= 2
        found.append((at, n))
        at += n
    return found


def relu(value: str, lanes: int) -> str:
    """max(value, 0) of a vector; what is not a number stays so."""
    return f"({value} < 0.0f ? 0.0f : {value})" if lanes == 1 else f"(v{lanes})((i{lanes}){value} & ~({value} < 0.0f))"


# exp on [-ln 2 / 2, ln 2 / 2], to about 1 ulp; from p = 1.9875691500e-4. It vectorises, as the library's does not.
_COEFFICIENTS = ("1.3981999507e-3", "8.3334519073e-3", "4.1665795894e-2", "1.6666665459e-1", "5.0000001201e-1")
_POLYNOMIAL = " ".join(f"p = p * r + {c}f;" for c in _COEFFICIENTS) + " p = p * r * r + r + 1.0f;"
_EXP = f"""
static inline float clcr_exp(float x) {{
    float z = x < -86.0f ? -86.0f : x > 89.0f ? 89.0f : x;
    union {{ float f; int32_t i; }} n = {{ z * 1.44269504088896341f + 12582912.0f }}, two; /* rounded */
    float k = n.f - 12582912.0f, r = (z - k * 0.693359375f) - k * -2.12194440e-4f, p = 1.9875691500e-4f;
    {_POLYNOMIAL}
    two.i = (n.i - 0x4B400000 + 126) * (1 << 23); /* half of the power: the whole of the largest is no float */
    return x < -86.0f ? 0.0f : x != x ? x : p * two.f * 2.0f;
}}"""


def _functions(n: int) -> str:
    """The types of n floats, and their exp (`clcr_exp`, step by step), sum and largest."""
    half = n // 2
    chosen = f"i{n} more = a > b; return (v{n})(((i{n})a & more) | ((i{n})b & ~more));"
    part = f"union {{ v{n} whole; v{half} part[2]; }} u = {{ x }};"
    if half == 1:
        largest = f"{part} return u.part[0] > u.part[1] ? u.part[0] : u.part[1];"
    else:
        largest = f"{part} return clcr_top{half}(clcr_more{half}(u.part[0], u.part[1]));"
    return f"""
typedef float v{n} __attribute__((vector_size({4 * n}), aligned(4), may_alias));
typedef int32_t i{n} __attribute__((vector_size({4 * n})));
static inline float clcr_sum{n}(v{n} x) {{ {part} return clcr_sum{half}(u.part[0] + u.part[1]); }}
static inline v{n} clcr_more{n}(v{n} a, v{n} b) {{ {chosen} }}
static inline float clcr_top{n}(v{n} x) {{ {largest} }}
static inline v{n} clcr_exp{n}(v{n} x) {{
    i{n} low = x < -86.0f, high = x > 89.0f;
    v{n} zero = {{0}}, z = (v{n})(((i{n})x & ~(low | high)) | ((i{n})(zero - 86.0f) & low) | ((i{n})(zero + 89.0f) & high));
    v{n} m = z * 1.44269504088896341f + 12582912.0f, k = m - 12582912.0f;
    v{n} r = (z - k * 0.693359375f) - k * -2.12194440e-4f, p = zero + 1.9875691500e-4f;
    {_POLYNOMIAL}
    i{n} two = ((i{n})m - 0x4B400000 + 126) << 23;
    return (v{n})((i{n})(p * (v{n})two * 2.0f) & ~low);
}}"""


C = _EXP + """
typedef float v1;
static inline float clcr_sum1(v1 x) { return x; }
static inline float clcr_top1(v1 x) { return x; }
static inline v1 clcr_more1(v1 a, v1 b) { return a > b ? a : b; }
static inline v1 clcr_exp1(v1 x) { return clcr_exp(x); }
""" + "".join(_functions(n) for n in _WIDTHS)
