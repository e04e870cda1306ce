"""The noise schedule in closed form, and transitions that compose."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from elign.common.schedule import NoiseSchedule, polynomial_gamma


def test_gamma_follows_the_polynomial_and_its_precision() -> None:
    gamma = polynomial_gamma(1000, 2.0, 1e-5)
    assert gamma.shape == (1001,)
    assert (np.diff(gamma) > 0).all()
    np.testing.assert_allclose(
        gamma[[0, -1]], [-np.log((1 - 1e-5) / 1e-5), np.log((1 - 1e-5) / 1e-5)], rtol=1e-4
    )
    middle = (1 - 2e-5) * (1 - (500 * 1001 / 1000 / 1001) ** 2) ** 2 + 1e-5
    np.testing.assert_allclose(1 / (1 + np.exp(gamma[500])), middle, rtol=1e-6)


def test_alpha_and_sigma_preserve_variance() -> None:
    schedule = NoiseSchedule()
    t = torch.arange(1001)
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(1001))


@given(st.integers(2, 1000), st.data())
def test_transition_scales_are_the_gaussian_posterior(t: int, data: st.DataObject) -> None:
    s = data.draw(st.integers(1, t - 1))
    schedule = NoiseSchedule().double()
    scales = schedule.scales(torch.tensor([t]), torch.tensor([s]))
    alpha_t, sigma_t, alpha_s, sigma_s = (
        f(torch.tensor([v])) for v in (t, s) for f in (schedule.alpha, schedule.sigma)
    )
    alpha_ts = alpha_t / alpha_s
    sigma2_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    torch.testing.assert_close(scales.alpha_ts, alpha_ts, rtol=1e-9, atol=0)
    torch.testing.assert_close(scales.eps_scale, sigma2_ts / (alpha_ts * sigma_t), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(scales.sigma, sigma2_ts.sqrt() * sigma_s / sigma_t, rtol=1e-6, atol=1e-12)
