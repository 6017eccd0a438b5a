"""Two files a paper: `<paper>.py` prepares its runs for `lib.train`, `<paper>_eval.py` predicts its rows for
`lib.evaluate`, which measures them all alike."""
