# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/notebooks: every cell runs, with sizes that show nothing, and what is stored holds no outputs."""

import json

import pytest
from transformers import AutoModel, AutoProcessor

from helpers.paths import EXAMPLES

# In place of the sizes in the cell that is tagged "parameters".
SIZES = {
    "pipeline": {
        "EPISODES": 2,
        "IMAGE_SIZE": 56,
        "MAX_STEPS": 100,
        "SFT_STEPS": 2,
        "SFT_BATCH_SIZE": 4,
        "ENCODER_STEPS": 2,
        "PREDICTOR_STEPS": 2,
        "CLIPS_PER_BATCH": 2,
        "STATES": 8,
        "DPO_STEPS": 2,
        "DPO_BATCH_SIZE": 2,
        "EVALUATION_EPISODES": 1,
    },
    "own_data": {"EPISODES": 3, "STEPS": 2, "BATCH_SIZE": 4},
    "dpo": {"EPISODES": 2, "SFT_STEPS": 2, "BATCH_SIZE": 4, "STATES": 8, "CANDIDATES": 3, "DPO_STEPS": 2},
}
POLICIES = {"pipeline": "pipeline/policy-dpo", "own_data": "own-data/policy", "dpo": "dpo/policy-dpo"}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.slow
def test_cells_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code), "strip the outputs"
    namespace = {}
    for number, cell in enumerate(code):
        exec(compile("".join(cell["source"]), f"{name}.ipynb, code cell {number}", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert SIZES[name].keys() <= namespace.keys()
            namespace |= SIZES[name]
    policy, _ = (kind.from_pretrained(tmp_path / POLICIES[name]) for kind in (AutoModel, AutoProcessor))
    assert policy.config.chunk_size == 5
    if name == "pipeline":
        assert "DPO succeeds in" in capsys.readouterr().out


def test_every_notebook_is_run():
    assert {path.stem for path in (EXAMPLES / "notebooks").glob("*.ipynb")} == SIZES.keys() == POLICIES.keys()
