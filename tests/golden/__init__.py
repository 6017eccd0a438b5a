"""What this repository computes, pinned, so that moving or rewriting code proves that nothing else changed.

`numbers.json` holds what the tests of this folder compute on small fixed inputs; `smoke.csv` holds the tables of a whole run of
the smoke profile, which `tests/pipeline/test_smoke_pipeline.py` compares. Tolerances leave room for the last digits of another
processor and for nothing else: a sign, a winding, a stream of random numbers or a constant that changes is found.

To write the numbers anew:

    pytest tests/golden --write-golden                          # numbers.json
    make repro PROFILE=smoke && python -m tests.golden.smoke    # smoke.csv

That is a decision: it says that what this repository computes has changed, on purpose. The commit that holds new numbers
names which changed and why. A commit that only moves code has no new numbers.
"""
