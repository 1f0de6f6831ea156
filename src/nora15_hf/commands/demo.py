# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Shows a policy and its world model in the browser: chunks of actions are drawn for a simulator's picture or an uploaded one,
imagined, ranked by how near they lead to a goal, and the best is executed in the simulator. Needs the extra `demo`.
"""

import json
from pathlib import Path

from ..runtime.thread_arguments import ThreadArguments
from .demo_arguments import DemoArguments

ARGUMENTS = (DemoArguments, ThreadArguments)


def run(options: DemoArguments) -> None:
    if options.export_space is not None:
        _export(options)
        return
    listening, say_where = options.open_page()
    from .demo_serving import serve_demo

    serve_demo(options, listening, say_where)


def _export(options: DemoArguments) -> None:
    from ..apps.space import write_space

    for model in (options.policy, options.world_model):
        if Path(model).is_dir():
            raise ValueError(
                f"A Space cannot read the folder {model!r}: push it first (nora15 push), and name its Hub id."
            )
    chosen = {
        "--environment": options.environment,
        "--tasks": ",".join(options.tasks) or None,
        "--suite": ",".join(options.suite) or None,
        "--protocol": options.protocol,
        "--dataset-key": options.dataset_key,
        "--revision": options.revision,
        "--world-model-revision": options.world_model_revision,
    }
    given = [word for option, value in chosen.items() if value is not None for word in (option, value)]
    settings = [word for name, value in options.set.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    files = write_space(
        options.export_space,
        policy=options.policy,
        world_model=options.world_model,
        arguments=[
            *("demo", options.policy, "--world-model", options.world_model, "--candidates", str(options.candidates)),
            *given,
            *settings,
        ],
        requirement=options.requirement,
    )
    print(f"Written: {', '.join(map(str, files))}. Create a Space with the SDK Gradio and push them to it.")


__all__ = ["ARGUMENTS", "DemoArguments", "run"]
