# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Shows the pairs of a preference set in the browser: filtered by instruction and margin, with the chosen, rejected and
demonstrated chunks, the rewards of all candidates and which reward decided. Needs the extra `demo`.
"""

from dataclasses import dataclass, field

from . import option_types
from .page_arguments import PageArguments


@dataclass
class ViewArguments(PageArguments):
    """The preference set and, for physical units, its policy."""

    preferences: str = field(
        metadata={
            "positional": True,
            "parse": option_types.folder_or_hub_id,
            "help": "the preference set: folder or Hub id",
        }
    )
    policy: str | None = field(
        default=None,
        metadata={
            "parse": option_types.folder_or_hub_id,
            "help": "folder or Hub id of the policy that sampled the candidates: chunks are then shown in physical units and, "
            "where its simulator knows how the camera sees the hand, on the picture",
        },
    )
    revision: str | None = field(
        default=None,
        metadata={"revision_of": ("preferences",), "help": "branch, tag or commit of the preference set's repo"},
    )
    policy_revision: str | None = field(
        default=None, metadata={"revision_of": ("policy",), "help": "branch, tag or commit of the policy's repo"}
    )


ARGUMENTS = (ViewArguments,)


def run(options: ViewArguments) -> None:
    listening, say_where = options.open_page()
    from ..apps.page_server import serve_page
    from ..apps.preference_browser import PreferenceBrowser
    from ..apps.view_page import view_page
    from ..nora15 import Nora15Processor
    from ..preferences import load_preferences

    processor = None
    if options.policy is not None:
        processor = Nora15Processor.from_pretrained(options.policy, revision=options.policy_revision)
    rows = load_preferences(options.preferences, revision=options.revision)
    serve_page(view_page(PreferenceBrowser(rows, processor)), listening, say_where)


__all__ = ["ARGUMENTS", "ViewArguments", "run"]
