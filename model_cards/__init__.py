"""Card templates, filled by `nora15_hf.hub.cards`."""
