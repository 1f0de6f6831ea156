# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The check of a noise temperature, without PyTorch, so that configurations can be checked before it is loaded."""


def check_noise_temperature(temperature: float) -> None:
    """
    Args:
        temperature (`float`): Standard deviation of the noise that the flow begins with.

    Raises:
        ValueError: It is negative or not finite.
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(
            f"temperature={temperature} must be at least 0 and finite; 1 is what the policy was trained with."
        )


__all__ = ["check_noise_temperature"]
