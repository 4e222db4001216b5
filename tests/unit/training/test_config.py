from __future__ import annotations

import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.training.config import PPOConfig


def test_text_values_of_a_manifest_are_read() -> None:
    config = PPOConfig.from_parameters(
        {
            "learning_rate": "1e-3",
            "hidden": "64",
            "network": "joint",
            "anneal_lr": "false",
            "target_kl": "0.02",
            "num_steps": "16.0",
        }
    )
    assert (config.learning_rate, config.hidden, config.network, config.anneal_lr) == (1e-3, 64, "joint", False)
    assert (config.target_kl, config.num_steps) == (0.02, 16)
    assert PPOConfig.from_parameters({"target_kl": "none"}).target_kl is None
    assert PPOConfig.from_parameters({}) == PPOConfig()


def test_every_setting_survives_the_way_through_text() -> None:
    config = PPOConfig(network="joint", target_kl=0.1, norm_adv=False)
    text = {name: str(value).lower() for name, value in config.to_json().items()}
    assert PPOConfig.from_parameters(text) == config


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"learning_rat": "1"}, ["learning_rat", "learning_rate"]),
        ({"gamma": "1.5"}, ["gamma", "1.5", "0 to 1"]),
        ({"gamma": "nan"}, ["gamma", "nan"]),
        ({"learning_rate": "fast"}, ["learning_rate", "'fast'"]),
        ({"hidden": "2.5"}, ["hidden", "2.5", "whole"]),
        ({"anneal_lr": "yes"}, ["anneal_lr", "'yes'", "true or false"]),
        ({"network": "gru"}, ["network", "'gru'", "shared or joint"]),
        ({"num_steps": "512"}, ["num_steps", "512", "256"]),
        ({"num_minibatches": "7"}, ["num_minibatches", "7", "8192"]),
        ({"group_size": "3"}, ["group_size", "3", "num_envs = 256"]),
        ({"group_size": "64", "num_minibatches": "256"}, ["num_minibatches", "256", "group_size = 128"]),
        ({"total_timesteps": "100"}, ["total_timesteps", "100", "8192"]),
    ],
)
def test_bad_parameters_are_refused_by_name_with_what_is_valid(parameters: dict[str, str], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        PPOConfig.from_parameters(parameters)
    assert all(word in str(refused.value) for word in words), str(refused.value)
