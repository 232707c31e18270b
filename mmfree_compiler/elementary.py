"""The constants of the arithmetic: the references in ops/, every backend and the runtime read them.

docs/arithmetic.md says what they are used in, step by step. Those of exp and tanh are fp32 numbers
in their shortest form. The polynomials are minimax fits of the relative error;
tests/ops/every_float.py measures the functions on every fp32 number.
"""

from __future__ import annotations

import struct

# The version of these constants, and of every step in docs/arithmetic.md: it changes with any bit
# of a result. Version 0 promised a tolerance.
ARITHMETIC = 1

LOG2_E = 1.442695
LN2_HIGH = 0.69311523  # 12 significant bits: its product with an integer up to 4095 is exact
LN2_LOW = 3.1946183e-05  # ln 2 - LN2_HIGH

# e^x is 0 from the first on down, and infinity from the second on up; between them, 2^n is a
# product of two powers of two that fp32 has.
EXP_LEAST, EXP_MOST = -104.0, 89.0
# (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, highest power first.
EXP = (0.0013863615, 0.008367674, 0.041667245, 0.16666533, 0.5)

# (tanh(x) / x - 1) / z for z = x^2, |x| < TANH_NEAR, highest power first.
TANH = (-0.005704982, 0.020639082, -0.05373971, 0.13331442, -0.3333328)
TANH_NEAR = 0.625

# Fixed point: a row whose absmax is below 2^e is taken in steps of 2^(e - FIXED_BITS). A smaller e
# counts as LEAST_EXPONENT, so that fp32 has both powers of two, 2^(FIXED_BITS - e) and its inverse.
# Smaller rows keep fewer bits; that is far below every eps that such a sum is added to.
FIXED_BITS, LEAST_EXPONENT = 23, -103

# Activation codes: the largest one, and the least absmax; a smaller one counts as this one, so that
# CODE_MAX / absmax is finite.
CODE_MAX, LEAST_PEAK = 127, 2.0**-120

# Sampling: the weight of the likeliest token; round(LIKELIEST * e^x) is 0 for every x below
# LEAST_RELATIVE, and at least 1 from it on; top-p is a multiple of 1 / SHARES.
LIKELIEST, LEAST_RELATIVE, SHARES = 2**30, -21.487562, 2**15
# A penalty of up to 1000 could make infinity of a logit above the first. Scaled by the second it
# cannot, and nothing else changes: differing logits of this size differ by far more than the 22
# times the highest temperature from which on weights are 0.
HUGE_LOGIT, HEADROOM = 1e30, 2.0**-10


def codes_per_unit(quant_eps: float) -> float:
    """CODE_MAX / quant_eps, both fp32; rounding it to fp32 gives their fp32 quotient."""
    (rounded,) = struct.unpack("f", struct.pack("f", quant_eps))
    return float(CODE_MAX / rounded)
