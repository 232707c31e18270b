"""Sampling: what may be chosen, with which probability, and that a seed decides everything else.

test_sampling_steps.py has the exact weights, test_drawing.py top-p and draws of given ones.
"""

from __future__ import annotations

from typing import Any, get_type_hints

import numpy as np
import pytest
from fake_launcher import lm_session
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmfree_compiler.backends.decoding import log_probability
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.next_token import distribution, sample
from mmfree_compiler.runtime.sampling import Sampling, SamplingOptions

NEVER = float("-inf")
LEAST = np.float32(-21.487562)  # relative logits below have weight 0
# Few distinct values, so that ties are common, and -inf, which masks a token out.
LOGITS = arrays(
    np.float32,
    st.integers(1, 30),
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, -2.5, 80.0, NEVER]), st.floats(-50, 50, width=32)
    ),
).filter(lambda logits: np.isfinite(logits).any())
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-3, 0.7, 1.0, 3.0]),
    top_k=st.integers(0, 12),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.3]),
)


def log_softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The definition, in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def unseen(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.zeros(logits.shape, np.bool_)


@given(LOGITS, SAMPLINGS, st.integers(0, 2**32), st.integers(0, 2**64 - 1))
def test_a_distribution_over_possible_tokens(
    logits: Any, sampling: Sampling, flags: int, seed: int
) -> None:
    seen = (flags >> np.arange(logits.size)) % 2 == 1
    ids, probabilities = distribution(logits, seen, sampling)
    assert (np.diff(ids) > 0).all()
    assert (probabilities > 0).all()
    # float64 quotients of at most 30 terms
    assert abs(probabilities.sum() - 1) < 1e-12
    assert np.isfinite(logits[ids]).all()
    assert len(ids) <= (sampling.top_k or logits.size)
    chosen, logprob = sample(logits, seen, sampling, seed, 7)
    assert chosen in ids
    assert logprob == log_probability(logits, chosen)
    assert (chosen, logprob) == sample(logits, seen, sampling, seed, 7)


@given(LOGITS, st.integers(0, 29))
def test_log_probabilities(logits: Any, token: int) -> None:
    token = min(token, logits.size - 1)
    expected = log_softmax(logits)[token]
    # exponentials are fp32; the difference of two logits of up to 80 is rounded to fp32
    assert log_probability(logits, token) == pytest.approx(expected, abs=1e-5)


@given(LOGITS, st.integers(1, 30))
def test_top_k_keeps_the_largest_and_the_lower_of_equals(logits: Any, k: int) -> None:
    ids, _ = distribution(logits, unseen(logits), Sampling(top_k=k))
    by_rank = sorted(range(logits.size), key=lambda i: (-logits[i], i))[:k]
    expected = [i for i in sorted(by_rank) if logits[i] - logits.max() >= LEAST]
    assert ids.tolist() == expected


@given(LOGITS, st.integers(1, 2**15 - 1))
def test_top_p_keeps_the_fewest_that_reach_it(logits: Any, share: int) -> None:
    top_p = share / 2**15
    whole_ids, whole = distribution(logits, unseen(logits), Sampling())
    ids, _ = distribution(logits, unseen(logits), Sampling(top_p=top_p))
    kept = whole[np.isin(whole_ids, ids)]
    assert kept.sum() >= top_p - 1e-12  # float64 sums of the same terms in two orders
    assert kept.sum() - kept.min() < top_p + 1e-12
    assert kept.min() >= whole[~np.isin(whole_ids, ids)].max(initial=0)


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95])
def test_top_p_of_a_large_vocabulary(spread: float, top_p: float) -> None:
    """Flat and peaked: the nucleus by its definition, a stable sort of everything."""
    logits = (np.random.default_rng(0).standard_normal(5000) * spread).round(2).astype(np.float32)
    ids, _ = distribution(logits, unseen(logits), Sampling(top_p=top_p))
    order = np.argsort(-logits, kind="stable")
    sums = np.exp(log_softmax(logits)[order]).cumsum()
    # A sum that reaches top_p but for rounding may end one token earlier or later.
    assert abs(len(ids) - (sums.searchsorted(top_p * sums[-1]) + 1)) <= 1
    assert ids.tolist() == sorted(order[: len(ids)].tolist())


@given(LOGITS, st.integers(0, 2**64 - 1))
def test_greedy_is_argmax(logits: Any, seed: int) -> None:
    chosen, _ = sample(logits, unseen(logits), Sampling(temperature=0), seed, 0)
    assert chosen == np.argmax(logits)


@given(LOGITS)
def test_plain_sampling_is_softmax(logits: Any) -> None:
    ids, probabilities = distribution(logits, unseen(logits), Sampling())
    # fp32 exponentials of fp32 differences; each weight is rounded to a multiple of 2^-30
    assert np.allclose(probabilities, np.exp(log_softmax(logits)[ids]), rtol=1e-5, atol=2**-30)


def test_the_repetition_penalty_makes_seen_tokens_less_likely() -> None:
    logits = np.array([2.0, -2.0, 2.0, -2.0], np.float32)
    seen = np.array([True, True, False, False])
    _, found = distribution(logits, seen, Sampling(repetition_penalty=2))
    expected = np.exp([1.0, -4.0, 2.0, -2.0])
    assert np.allclose(found, expected / expected.sum(), rtol=1e-6)  # fp32


def test_temperature_divides() -> None:
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    _, found = distribution(logits, unseen(logits), Sampling(temperature=0.5))
    expected = np.exp([2.0, 4.0, 6.0])
    assert np.allclose(found, expected / expected.sum(), rtol=1e-6)  # fp32


@pytest.mark.parametrize("by", ["seed", "position"])
def test_draws_follow_the_distribution(by: str) -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    places = [{"seed": 0, "position": 0} | {by: i} for i in range(4000)]
    drawn = [sample(logits, unseen(logits), Sampling(), **place)[0] for place in places]
    # five standard deviations of a frequency among 4000 draws are below 0.04
    assert np.abs(np.bincount(drawn, minlength=3) / 4000 - [0.5, 0.3, 0.2]).max() < 0.04


def test_a_tiny_temperature_is_greedy() -> None:
    logits = np.array([1.0, 5.0, 4.9], np.float32)
    ids, _ = distribution(logits, unseen(logits), Sampling(temperature=5e-324))
    assert ids.tolist() == [1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_logits(bad: float, temperature: float) -> None:
    logits = np.array([0.0, bad] if bad != -np.inf else [bad, bad], np.float32)
    sampling = Sampling(temperature=temperature)
    cause = "are all -inf" if bad == -np.inf else "contain NaN or infinity"
    with pytest.raises(InputError, match=f"logits: {cause}"):
        sample(logits, unseen(logits), sampling, 0, 0)


LARGEST = float(np.finfo(np.float32).max)
HUGE = [
    [LARGEST, 0.5 * LARGEST, -LARGEST],
    [-LARGEST, -0.5 * LARGEST, -0.7 * LARGEST],
    [LARGEST, LARGEST, 1.0],
    [2e30, 1e27, 3e27],
    [3.0, -LARGEST, NEVER],
    [-1.0, -LARGEST, -0.5 * LARGEST],
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("logits", HUGE, ids=str)
@pytest.mark.parametrize("penalty", [1e-3, 1.3, 1e3])
@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1.0, 1e6])
@pytest.mark.parametrize("seen", [0b001, 0b010, 0b111])
def test_huge_logits(logits: list[float], penalty: float, temperature: float, seen: int) -> None:
    """The definition, in float64, where nothing overflows."""
    array, flags = np.array(logits, np.float32), (seen >> np.arange(3)) % 2 == 1
    sampling = Sampling(repetition_penalty=penalty, temperature=temperature)
    ids, found = distribution(array, flags, sampling)
    scores = array.astype(np.float64)
    scores[flags] *= np.where(scores[flags] > 0, 1 / penalty, penalty)
    weights = np.exp((scores - scores.max()) / max(temperature, 1e-30))
    if not temperature:
        weights[np.arange(3) != scores.argmax()] = 0
    expected = np.flatnonzero(weights > 2**-31)  # smaller ones are rounded to 0
    assert ids.tolist() == expected.tolist()
    assert np.allclose(found, weights[expected] / weights.sum(), rtol=1e-3)
    chosen, logprob = sample(array, flags, sampling, 0, 0)
    assert chosen in ids
    assert logprob == log_softmax(array)[chosen]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", np.nan),
        ("temperature", np.inf),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_p", np.nan),
        ("top_p", None),
        ("repetition_penalty", 0),
        ("repetition_penalty", np.inf),
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", b"a"),
        ("stop", None),
    ],
)
def test_settings_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        Sampling(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_k", -1, "top_k: -1 is out of range. Choose at least 0"),
        ("top_k", 1.5, "top_k: 1.5 is not an integer. Choose at least 0"),
        ("max_new_tokens", 0, "max_new_tokens: 0 is out of range. Choose at least 1"),
        ("stop", ["a", 1], "stop: ['a', 1] is not a non-empty string or a sequence of them. Pass"),
        ("top_p", 0, "top_p: 0 is out of range. Choose more than 0 and at most 1"),
        (
            "temperature",
            "hot",
            "temperature: 'hot' is not a number. Choose at least 0 and at most 1,000",
        ),
    ],
)
def test_messages_about_bad_settings(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Sampling(**{name: value})
    assert str(caught.value).startswith(message)


def test_stop_strings() -> None:
    assert Sampling().stop_strings == ()
    assert Sampling(stop="ab").stop_strings == ("ab",)
    assert Sampling(stop=["a", "b"]).stop_strings == ("a", "b")


def test_the_options_are_the_fields() -> None:
    assert get_type_hints(SamplingOptions) == get_type_hints(Sampling)


def test_options_replace_the_fields_of_a_sampling() -> None:
    session, greedy = lm_session(), Sampling(temperature=0, max_new_tokens=5, stop_tokens=())
    expected = session.generate([1], temperature=0, max_new_tokens=3, stop_tokens=())
    assert list(session.generate([1], greedy, max_new_tokens=3)) == list(expected)
    (found,) = session.generate_batch([[1]], greedy, max_new_tokens=3)
    assert found.tokens == expected.tokens


def test_an_option_that_does_not_exist() -> None:
    options: Any = {"temprature": 1}
    message = "^setting 'temprature': is not a setting. Known: repetition_penalty, .*, stop_tokens$"
    with pytest.raises(InputError, match=message):
        lm_session().generate([1], **options)
    with pytest.raises(InputError, match=message):
        lm_session().generate_batch([[1]], **options)
