"""From per-subject errors to tables, claim verdicts, figures and their provenance."""
