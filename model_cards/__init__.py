"""Card templates, filled by `nora15_hf.cards.cards`."""
