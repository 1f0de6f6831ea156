# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The options `--num-steps` and `--temperature`."""

from dataclasses import dataclass, field

from . import option_types


@dataclass(kw_only=True)
class FlowArguments:
    """How actions are sampled by every command in which a policy acts, for [`~nora15_hf.control.chunk_samplers.FlowSampler`]."""

    num_steps: int | None = field(
        default=None, metadata={"parse": option_types.positive, "help": "solver steps (default: the policy's)"}
    )
    temperature: float | None = field(
        default=None,
        metadata={
            "parse": option_types.non_negative_number,
            "help": "of the noise that the flow begins with; below 1 actions vary less (default: 1, as trained)",
        },
    )


__all__ = ["FlowArguments"]
