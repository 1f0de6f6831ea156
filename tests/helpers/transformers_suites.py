# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""transformers' common test suites, imported from its unpacked source distribution."""

import importlib
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

SUITES_FOLDER = "TRANSFORMERS_SUITES"
"""Environment variable: the folder that `make test-transformers` downloads to. Without it the suites are not collected."""


def _local_picture(url: str) -> str:
    """A picture of noise in place of the suites' pictures on the Hub; other files are not asked for."""
    if not url.endswith((".png", ".jpg")):
        return url
    path = Path(tempfile.gettempdir(), f"suite-{os.getpid()}.png")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def _stand_in(name: str, **contents) -> None:
    module = ModuleType(name)
    vars(module).update(contents, __path__=[])
    sys.modules[name] = module


def load_suite(name: str) -> ModuleType:
    """
    A module of the source distribution's `tests/`, for example `"test_modeling_common"`.

    The distribution ships these modules without their neighbours: what they import from those is stood in for, so that the
    tests of ONNX export, of `generate` and of the Hub's files are empty.
    """
    (tests,) = Path(os.environ[SUITES_FOLDER]).glob("transformers-*/tests")
    if "transformers_suites" not in sys.modules:
        sys.path.append(str(Path(os.environ[SUITES_FOLDER], "site")))
        _stand_in("transformers_suites")
        sys.modules["transformers_suites"].__path__ = [str(tests)]
        for package in ("exporters", "generation", "utils"):
            _stand_in(f"transformers_suites.{package}")
        _stand_in("transformers_suites.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
        _stand_in(
            "transformers_suites.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {})
        )
        _stand_in(
            "transformers_suites.utils.test_configuration_utils", config_common_kwargs={"output_hidden_states": True}
        )
        _stand_in("fetch_hub_objects_for_ci", url_to_local_path=_local_picture)
    return importlib.import_module(f"transformers_suites.{name}")


__all__ = ["SUITES_FOLDER", "load_suite"]
