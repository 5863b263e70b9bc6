"""The page of all results: its sections, figures, template and scripts."""
