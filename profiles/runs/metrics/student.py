"""Student's t distribution, for any positive number of degrees of freedom, whole or not."""

import math
from statistics import NormalDist

CONFIDENCE = 0.95  # of every interval that is told
MAX_TERMS = 10_000  # of the continued fraction; some hundred are used
EPSILON = 1e-15
TINY = 1e-300
# From here on the quantile is the normal one to seven figures, and the fraction is slow.
NORMAL_FREEDOM = 1e7


def confident_reach(freedom: float) -> float:
    """Return how many standard errors an interval of CONFIDENCE reaches to either side."""
    return student_quantile(0.5 + CONFIDENCE / 2, freedom)


def student_quantile(share: float, freedom: float) -> float:
    """Return t with P(T <= t) = share, by bisection of the distribution function.

    Args:
        share: above one half and below 1.
        freedom: degrees of freedom, above 0; Welch's are no whole number.
    """
    if not 0.5 < share < 1 or not freedom > 0:
        raise ValueError(f"no quantile of {share} with {freedom} degrees of freedom")
    if freedom >= NORMAL_FREEDOM:
        return NormalDist().inv_cdf(share)
    low, high = 0.0, 1.0
    while _upper_tail(high, freedom) > 1 - share:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if _upper_tail(middle, freedom) > 1 - share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _upper_tail(t: float, freedom: float) -> float:
    """Return P(T > t) for t >= 0: half of I_x(freedom / 2, 1 / 2), x = freedom / (freedom + t^2).

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.5.27.
    """
    square = t * t
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square)) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b).

    Source: Abramowitz and Stegun, 26.5.8 (the continued fraction) and 26.5.2 (the symmetry), by
    Lentz's method (Press et al., Numerical Recipes, section 6.4).
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x)) / a
    numerator, denominator = 1.0, 1 / (1 - (a + b) * x / (a + 1) or TINY)
    value = denominator
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / (1 + term * denominator or TINY)
            numerator = 1 + term / numerator or TINY
            value *= numerator * denominator
        if abs(numerator * denominator - 1) < EPSILON:
            return front * value
    raise ArithmeticError(f"I_{x}({a}, {b}) does not converge")
