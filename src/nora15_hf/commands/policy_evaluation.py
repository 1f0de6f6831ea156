# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 evaluate` does with its options."""

import sys
from contextlib import ExitStack
from dataclasses import replace

from huggingface_hub import ResolvedRevision
from transformers.utils.hub import resolve_revision

from ..cards.card_settings import setting_text
from ..control import FlowSampler, GreedyFastSampler
from ..control.chunk_policy import Nora15ChunkPolicy
from ..evaluation.environment_choice import choose_dataset_key, environment_settings, recorded_environment
from ..evaluation.evaluated_policy import EvaluatedPolicy
from ..evaluation.evaluation_run import LOGS_FOLDER, THROUGHPUT_FILE, run_evaluation
from ..evaluation.results import COMPARISON_FILE, EPISODES_FILE, RESULTS_FILE, EvaluationResults, compare_results
from ..evaluation.throughput import Throughput
from ..hub import add_evaluation
from ..nora15 import Nora15ForActionPrediction, Nora15Processor
from ..repo_files.json_files import write_json
from ..repo_files.settings import flat_settings
from ..runtime.device import usable_device
from ..simulation.environment import EnvironmentSpec
from ..simulation.environment_table import find_environment
from ..simulation.simulation_pool import LostEnvironmentError, SimulationPool
from ..trainers import load_merged_policy
from . import option_types
from .evaluate_arguments import EPISODES, EvaluateArguments

__all__ = ["evaluate"]

# Of the policy, and therefore of its server where it has one.
_POLICY_OPTIONS = ("decoder", "num_steps", "temperature", "dataset_key", "base_model", "device", "revision")


def evaluate(options: EvaluateArguments) -> int:
    """Runs the evaluation and prints what came of it; returns the exit code."""
    other = None if options.compare is None else EvaluationResults.load(options.compare)
    if not option_types.is_server(options.policy):
        return _evaluate(options, *_loaded(options), other)
    # Imported here: what it needs is an extra.
    from ..serving import PolicyServerError

    with ExitStack() as stack:
        try:
            return _evaluate(options, *_served(options, stack), other)
        except PolicyServerError as error:
            raise ValueError(f"{error} Finished episodes are kept; --resume continues.") from error


def _evaluate(
    options: EvaluateArguments, policy: EvaluatedPolicy, environment: str, other: EvaluationResults | None
) -> int:
    entry = find_environment(environment)
    tasks = options.selected_tasks(environment)
    settings = environment_settings(entry, tasks, options.settings(), policy.metadata["conventions"])
    if not entry.tasks:
        # They depend on the settings.
        tasks = replace(entry, tasks=entry.describe(settings).tasks).select_tasks(options.tasks, options.suite)
    throughput = Throughput()
    try:
        with SimulationPool(
            environment, num_workers=options.workers, num_slots=options.slots, timeout=options.timeout, **settings
        ) as pool:
            episodes = options.episodes or pool.spec.initial_states or EPISODES
            print(_rules(pool.spec, policy, len(tasks), episodes, options), flush=True)
            results = run_evaluation(
                policy,
                tasks,
                pool,
                options.output,
                episodes_per_task=episodes,
                first_seed=options.first_seed,
                n_action_steps=options.n_action_steps,
                control=options.control,
                recorded_per_task=options.record,
                against=other,
                resume=options.resume,
                overwrite=options.overwrite,
                throughput=throughput,
            )
    except LostEnvironmentError as error:
        print(
            f"nora15 evaluate: {error}\nFinished episodes are kept; --resume continues. Logs: {options.output / LOGS_FOLDER}",
            file=sys.stderr,
        )
        return 1
    print(f"\n{results.describe()}")
    if throughput.episodes:
        print(throughput.describe())
    if other is not None and results.counted:
        comparison = compare_results(results, other)
        write_json(options.output / COMPARISON_FILE, comparison.to_dict())
        print(f"\n{comparison.describe()}")
    if options.write_card and results.counted:
        print(f"\nCard: {add_evaluation(options.policy, results.card_evaluation())}")
    print(f"\nwritten to {options.output}: {RESULTS_FILE}, {EPISODES_FILE}, {THROUGHPUT_FILE}")
    return 1 if results.lost else 0


def _loaded(options: EvaluateArguments) -> tuple[EvaluatedPolicy, str]:
    """The policy of a repo, and the environment."""
    for option, value in (("--num-steps", options.num_steps), ("--temperature", options.temperature)):
        if options.decoder == "fast" and value is not None:
            raise ValueError(f"{option} {value} applies to the flow decoder; omit it with --decoder fast.")
    temperature = 1.0 if options.temperature is None else options.temperature
    device = usable_device(options.device)
    revision = resolve_revision(options.policy, options.revision)
    if options.base_model is None:
        model = Nora15ForActionPrediction.from_pretrained(options.policy, revision=revision, device_map=device)
        processor = Nora15Processor.from_pretrained(options.policy, revision=revision)
    else:
        model, processor = load_merged_policy(options.base_model, options.policy, adapter_revision=revision)
        model.to(device)
    conventions = {key: processor.conventions.get(key, {}) for key in processor.norm_stats}
    environment = options.environment or recorded_environment(conventions)
    return Nora15ChunkPolicy(
        model,
        processor,
        options.dataset_key or choose_dataset_key(conventions, environment, options.selected_tasks(environment)),
        GreedyFastSampler(on_invalid="mask")
        if options.decoder == "fast"
        else FlowSampler(options.num_steps, temperature),
        revision.resolved if isinstance(revision, ResolvedRevision) else options.revision,
    ), environment


def _served(options: EvaluateArguments, stack: ExitStack) -> tuple[EvaluatedPolicy, str]:
    """The policy of a server, and the environment."""
    given = [f"--{name.replace('_', '-')}" for name in _POLICY_OPTIONS if vars(options)[name] is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: the server of {options.policy} decides this; start the server with the option."
        )
    from ..serving import PolicyClient

    key = None if options.api_key_file is None else options.api_key_file.read_text(encoding="utf-8").strip()
    client = stack.enter_context(PolicyClient(options.policy, api_key=key))
    # Of an answer; whether somebody listens shows sooner.
    client.timeout = options.timeout
    if "contract" not in client.metadata:
        raise ValueError(
            f"The server of {options.policy} does not report what its policy was trained on, so it cannot be compared with a "
            "simulator. Start it with nora15 serve."
        )
    conventions = {client.metadata["dataset_key"]: client.metadata["conventions"]}
    return client, options.environment or recorded_environment(conventions)


def _rules(
    spec: EnvironmentSpec, policy: EvaluatedPolicy, num_tasks: int, episodes: int, options: EvaluateArguments
) -> str:
    """What is run, and under which rules."""
    first, last = options.first_seed, options.first_seed + episodes - 1
    metadata = policy.metadata
    steps = "" if metadata["num_steps"] is None else f", {metadata['num_steps']} steps of {metadata['solver']}"
    rules = ", ".join(f"{name} {setting_text(value)}" for name, value in flat_settings(spec.conventions).items())
    return (
        f"{spec.title}: {num_tasks} tasks x {episodes} episodes, seeds {first} to {last}\n"
        f"Policy: {metadata['policy']}, statistics {metadata['dataset_key']!r}, decoder {metadata['decoder']}{steps}\n"
        f"Rules: {rules}"
    )
