# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 demo` does with its options."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from ..apps.demo_page import demo_page
from ..apps.demo_simulator import DemoSimulator
from ..apps.page_server import serve_page
from ..apps.ranked_policy import RankedPolicy
from ..data.video_decoder import import_av
from ..evaluation.demonstrations import RECORDING
from ..evaluation.environment_choice import choose_dataset_key, environment_settings, recorded_environment
from ..evaluation.environment_fit import check_policy_fits
from ..nora15 import Nora15Processor
from ..repo_files.fingerprint import artefact_name
from ..runtime.device import usable_device
from ..simulation.environment_table import find_environment
from ..simulation.simulation_pool import SimulationPool
from .demo_arguments import DemoArguments

__all__ = ["serve_demo"]


def serve_demo(options: DemoArguments, listening: socket.socket, on_ready: Callable[[], None]) -> None:
    """Loads the models, starts the simulator and serves the page until it is told to stop."""
    with ExitStack() as stack:
        processor = Nora15Processor.from_pretrained(options.policy, revision=options.revision)
        simulator, tasks, key = None, [], options.dataset_key
        if options.environment != "none":
            import_av()
            simulator, tasks, key = _simulator(options, processor, stack)
        ranked = RankedPolicy.from_pretrained(
            options.policy,
            options.world_model,
            dataset_key=key,
            device=usable_device(options.device),
            revision=options.revision,
            world_model_revision=options.world_model_revision,
        )
        if simulator is not None and ranked.judged_camera not in simulator.spec.cameras:
            raise ValueError(
                f"The world model looks through the camera {ranked.judged_camera!r}, but {simulator.spec.title} has "
                f"{', '.join(simulator.spec.cameras)}. Choose other settings with --set, or --environment none."
            )
        page = demo_page(
            ranked,
            title=artefact_name(options.policy),
            num_candidates=options.candidates,
            simulator=simulator,
            tasks=tasks,
        )
        serve_page(page, listening, on_ready)


def _simulator(
    options: DemoArguments, processor: Nora15Processor, stack: ExitStack
) -> tuple[DemoSimulator, list[str], str | None]:
    """The simulator, its tasks to choose from, and the policy's dataset key that belongs to it."""
    conventions = {key: processor.conventions.get(key, {}) for key in processor.norm_stats}
    environment = options.environment or recorded_environment(conventions)
    entry = find_environment(environment)
    if entry.tasks and not (options.tasks or options.suite):
        # Those that the policy has learned, as far as its repo tells.
        known = [settings for settings in conventions.values() if settings.get("simulator") == environment]
        learned = [task for settings in known for task in settings.get(RECORDING, {}).get("failed_seeds", {})]
        options = replace(options, tasks=learned or list(entry.tasks))
    tasks = options.selected_tasks(environment)
    key = options.dataset_key or choose_dataset_key(conventions, environment, tasks)
    settings = environment_settings(entry, tasks, options.settings(), conventions.get(key, {}))
    if not entry.tasks:
        # They depend on the settings.
        tasks = replace(entry, tasks=entry.describe(settings).tasks).select_tasks(options.tasks, options.suite)
    pool = stack.enter_context(SimulationPool(environment, num_workers=1, num_slots=1, **settings))
    check_policy_fits(processor, pool.spec, key)
    return DemoSimulator(pool), tasks, key
